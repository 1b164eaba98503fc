//! Memory as Linux reports it: `/proc`, and control groups (cgroups) of both versions. Other systems do not have these
//! files.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The minimum of the free memory and of what is left by the control groups and the limits of the process.
pub(super) fn available() -> Option<u64> {
    let root = Path::new("/");
    [free(root), control_groups(root), own_limits(root)].into_iter().flatten().min()
}

/// Peak resident memory of this process.
pub(super) fn peak() -> Option<u64> {
    kibibytes(&read(Path::new("/"), "proc/self/status")?, "VmHWM:")
}

fn read(root: &Path, file: &str) -> Option<String> {
    fs::read_to_string(root.join(file)).ok()
}

/// The bytes on the line of a `/proc` table that starts with `name`; the table is in kB.
fn kibibytes(table: &str, name: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

fn free(root: &Path) -> Option<u64> {
    kibibytes(&read(root, "proc/meminfo")?, "MemAvailable:")
}

/// What is left by `ulimit -v` and `ulimit -d`.
fn own_limits(root: &Path) -> Option<u64> {
    let (limits, status) = (read(root, "proc/self/limits")?, read(root, "proc/self/status")?);
    let left = |limit: &str, used: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit))?;
        let most = line.split_whitespace().next()?.parse::<u64>().ok()?;
        Some(most.saturating_sub(kibibytes(&status, used)?))
    };
    [left("Max address space", "VmSize:"), left("Max data size", "VmData:")].into_iter().flatten().min()
}

/// The files of a control group that limit memory. The two versions of the interface have different names.
struct Hierarchy {
    limits: &'static [&'static str],
    used: &'static str,
    /// Lines of `memory.stat` for the page cache, which the system frees when memory is short.
    cache: [&'static str; 2],
}

const FIRST: Hierarchy = Hierarchy {
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    cache: ["total_inactive_file", "total_active_file"],
};
const SECOND: Hierarchy = Hierarchy {
    limits: &["memory.max", "memory.high"],
    used: "memory.current",
    cache: ["inactive_file", "active_file"],
};

/// What is left by the control groups of the process and their ancestors: the minimum of limit minus use, without the
/// page cache.
fn control_groups(root: &Path) -> Option<u64> {
    let (groups, mounts) = (read(root, "proc/self/cgroup")?, read(root, "proc/self/mountinfo")?);
    groups.lines().flat_map(|group| left_by(root, group, &mounts)).min()
}

/// What is left by each group on the path of one line of `/proc/self/cgroup`, `ID:CONTROLLERS:PATH`.
fn left_by(root: &Path, group: &str, mounts: &str) -> Vec<u64> {
    let mut parts = group.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let hierarchy = match controllers {
        "" => &SECOND,
        list if list.split(',').any(|c| c == "memory") => &FIRST,
        _ => return Vec::new(),
    };
    let Some((top, mount)) = mounts.lines().find_map(|line| mounted(line, controllers.is_empty())) else {
        return Vec::new();
    };
    // A container may see only a part of the hierarchy, at the root of the mount.
    let below = Path::new(path).strip_prefix(top).unwrap_or(Path::new(""));
    let mount = root.join(mount.trim_start_matches('/'));
    below.ancestors().filter_map(|group| hierarchy.left(&mount.join(group))).collect()
}

/// The root and mount point in a line of `/proc/self/mountinfo`; None where it does not mount the memory hierarchy.
fn mounted(line: &str, second: bool) -> Option<(&str, &str)> {
    let (place, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    let (kind, options) = (system.next()?, system.nth(1)?);
    let fits = if second { kind == "cgroup2" } else { kind == "cgroup" && options.split(',').any(|o| o == "memory") };
    let mut place = place.split(' ').skip(3);
    fits.then_some((place.next()?, place.next()?))
}

impl Hierarchy {
    fn left(&self, group: &Path) -> Option<u64> {
        let number = |file: &str| -> Option<u64> { fs::read_to_string(group.join(file)).ok()?.trim().parse().ok() };
        let limit = self.limits.iter().filter_map(|file| number(file)).min()?;
        let stat = fs::read_to_string(PathBuf::from(group).join("memory.stat")).unwrap_or_default();
        let cache = stat.lines().filter_map(|line| {
            let (name, bytes) = line.split_once(' ')?;
            self.cache.contains(&name).then(|| bytes.trim().parse::<u64>().ok())?
        });
        let used = number(self.used).unwrap_or(0).saturating_sub(cache.sum());
        Some(limit.saturating_sub(used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A folder with the files of a system, by path.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, text).expect("a file");
        }
        root
    }

    const V2_MOUNT: &str = "29 22 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
    const V1_MOUNT: &str = "30 22 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    #[test]
    fn the_tightest_group_counts_and_page_cache_does_not() {
        let files = [
            ("proc/self/cgroup", "0::/user/app\n"),
            ("proc/self/mountinfo", V2_MOUNT),
            ("sys/fs/cgroup/user/app/memory.max", "max\n"),
            ("sys/fs/cgroup/user/app/memory.current", "123\n"),
            ("sys/fs/cgroup/user/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/user/memory.current", "700000000\n"),
            (
                "sys/fs/cgroup/user/memory.stat",
                "anon 1\ninactive_file 400000000\nactive_file 100000000\nfile 500000000\n",
            ),
        ];
        // 2^30 - (700 - 400 - 100) * 10^6
        assert_eq!(control_groups(system(&files).path()), Some(GIB - 200_000_000));
    }

    #[test]
    fn the_first_version_is_read_too() {
        let files = [
            ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n"),
            ("proc/self/mountinfo", V1_MOUNT),
            ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1073741824\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.stat", "cache 9\ntotal_inactive_file 268435456\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(control_groups(system(&files).path()), Some(GIB - GIB / 4));
    }

    #[test]
    fn a_container_sees_its_own_part_as_the_root() {
        let files = [
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2_MOUNT),
            ("sys/fs/cgroup/memory.max", "1000\n"),
            ("sys/fs/cgroup/memory.current", "400\n"),
        ];
        assert_eq!(control_groups(system(&files).path()), Some(600));
        let docker = [
            ("proc/self/cgroup", "4:memory:/docker/abc\n"),
            ("proc/self/mountinfo", "30 22 0:27 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n"),
        ];
        assert_eq!(control_groups(system(&docker).path()), Some(0));
    }

    #[test]
    fn limits_of_the_process_itself_count() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max data size             unlimited            unlimited            bytes     \n\
                      Max address space         1073741824           unlimited            bytes     \n";
        let files = [("proc/self/limits", limits), ("proc/self/status", "VmSize:\t  524288 kB\nVmData:\t 1 kB\n")];
        assert_eq!(own_limits(system(&files).path()), Some(GIB / 2));
        assert_eq!(own_limits(system(&[]).path()), None);
    }

    #[test]
    fn no_limit_is_none() {
        assert_eq!(control_groups(system(&[]).path()), None);
        let files =
            [("proc/self/cgroup", "0::/a\n"), ("proc/self/mountinfo", V2_MOUNT), ("sys/fs/cgroup/a/memory.max", "max")];
        assert_eq!(control_groups(system(&files).path()), None);
    }
}
