//! How much memory there is, before any is taken.

use crate::Error;

/// Bytes of memory that this process could take on the host now, where the system tells.
pub fn host_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Peak of this process's resident memory in bytes, where the system tells.
pub fn host_peak() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether `need` bytes fit into `have`.
///
/// # Errors
/// [`Error::OutOfMemory`] with both numbers. An unknown `have` fits.
pub fn check_fits(what: &str, need: u64, have: Option<u64>, hint: &str) -> Result<(), Error> {
    match have {
        Some(have) if need > have => {
            Err(Error::OutOfMemory { what: what.to_owned(), need, have, hint: hint.to_owned() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused_with_both_numbers() {
        let refused = check_fits("the weights", 11, Some(10), "use less").unwrap_err();
        assert!(matches!(refused, Error::OutOfMemory { need: 11, have: 10, .. }), "got {refused}");
        assert!(check_fits("the weights", 10, Some(10), "").is_ok(), "expected an exact fit to fit");
        assert!(check_fits("the weights", u64::MAX, None, "").is_ok(), "expected an unknown size to fit");
    }
}
