//! Enters: answers about drawn scenes, whose objects' places are known. Leaves: what each token shows, what was kept
//! of the object asked about, and which scales regions with text got.

use std::collections::{BTreeMap, HashSet};

use super::{
    modes::{Answer, Kept},
    samples::Sample,
};

/// The objects on the patches of a token, none twice.
fn on(owners: &[Option<usize>], looked: &fovea_model::Looked, [y0, x0, y1, x1]: [usize; 4]) -> Vec<usize> {
    let grid = looked.grid;
    let width = grid.cols * grid.patches;
    let mut objects = Vec::new();
    for y in y0..y1 {
        for x in x0..x1 {
            let owner = owners.get((y + grid.top) * width + x + grid.left).copied().flatten();
            objects.extend(owner.filter(|o| !objects.contains(o)));
        }
    }
    objects
}

/// Who owns each patch of a scene's canvas; None where the model lays pictures on other canvases than scenes are drawn for.
fn owners(scene: &fovea_scenes::Scene, looked: &fovea_model::Looked) -> Option<Vec<Option<usize>>> {
    let owners = scene.patch_owners();
    let grid = looked.grid;
    (owners.len() == grid.rows * grid.cols * grid.patches * grid.patches).then_some(owners)
}

/// What a visual token shows, seen from a question about one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The object asked about, whatever else lies there.
    Queried,
    /// Another object.
    Others,
    /// No object.
    Background,
    /// A part of the whole picture: the thumbnail's tokens.
    Thumbnail,
    /// Nothing: the newline after a row.
    Newline,
}

impl On {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Queried, Self::Others, Self::Background, Self::Thumbnail, Self::Newline];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queried => "queried",
            Self::Others => "others",
            Self::Background => "background",
            Self::Thumbnail => "thumbnail",
            Self::Newline => "newlines",
        }
    }
}

/// Which part of the sequence each visual token belongs to, the thumbnail's first; all of the map as
/// [`On::Background`].
pub fn parts(looked: &fovea_model::Looked) -> Vec<On> {
    let map = looked.boxes.iter().map(|token| if token[1] == token[3] { On::Newline } else { On::Background });
    std::iter::repeat_n(On::Thumbnail, looked.thumbnail).chain(map).collect()
}

/// What each visual token shows of a scene, the thumbnail's first; None where the model lays pictures on other
/// canvases than scenes are drawn for.
pub fn tokens(scene: &fovea_scenes::Scene, target: usize, looked: &fovea_model::Looked) -> Option<Vec<On>> {
    let owners = owners(scene, looked)?;
    let mut parts = parts(looked);
    for (part, token) in parts.iter_mut().skip(looked.thumbnail).zip(looked.boxes.iter()) {
        if *part == On::Newline {
            continue;
        }
        let objects = on(&owners, looked, *token);
        *part = match () {
            () if objects.contains(&target) => On::Queried,
            () if !objects.is_empty() => On::Others,
            () => On::Background,
        };
    }
    Some(parts)
}

/// Shares of the map's tokens that were kept, over all questions; a newline is no token here. None where no picture is a
/// scene.
pub fn kept(answers: &[Answer], samples: &[Sample]) -> Option<Kept> {
    // (kept, all) of queried, others, background
    let mut counts = [(0usize, 0usize); 3];
    for answer in answers {
        let (Some(scene), Some(target)) = (&samples[answer.sample].scene, answer.target) else { continue };
        let looked = &answer.turn.looked;
        let Some(tokens) = tokens(scene, target, looked) else { continue };
        let mut stays = vec![false; tokens.len()];
        looked.kept.iter().for_each(|&i| stays[i] = true);
        for (token, stays) in tokens.into_iter().zip(stays) {
            let group = match token {
                On::Queried => 0,
                On::Others => 1,
                On::Background => 2,
                On::Thumbnail | On::Newline => continue,
            };
            counts[group].0 += usize::from(stays);
            counts[group].1 += 1;
        }
    }
    let share = |(kept, all): (usize, usize)| kept as f64 / all.max(1) as f64;
    let [queried, others, background] = counts.map(share);
    (counts[0].1 > 0).then_some(Kept { queried, others, background })
}

/// Shares of the regions at each scale, in the order of the config, by what lies on them. None where no picture is a scene.
pub fn scales(answers: &[Answer], samples: &[Sample]) -> Option<BTreeMap<String, Vec<f64>>> {
    let mut counts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for answer in answers {
        let Some(scene) = &samples[answer.sample].scene else { continue };
        // The scales depend on the picture alone.
        if !seen.insert(answer.sample) {
            continue;
        }
        let looked = &answer.turn.looked;
        let Some(owners) = owners(scene, looked) else { continue };
        let (height, width, window) = (looked.grid.height, looked.grid.width, looked.window);
        let across = width.div_ceil(window).max(1);
        for (i, &choice) in looked.choice.iter().enumerate() {
            let (y, x) = (i / across * window, i % across * window);
            let objects = on(&owners, looked, [y, x, (y + window).min(height), (x + window).min(width)]);
            let texts = objects.iter().filter(|&&o| scene.objects()[o].kind.has_text()).count();
            let group = match texts {
                0 if objects.is_empty() => "background",
                0 => "shapes",
                1 => "one text",
                _ => "several texts",
            };
            let counts = counts.entry(group).or_insert_with(|| vec![0; looked.scales.len()]);
            counts[choice] += 1;
        }
    }
    let shares = |counts: Vec<usize>| {
        let all = counts.iter().sum::<usize>().max(1) as f64;
        counts.into_iter().map(|c| c as f64 / all).collect()
    };
    (!counts.is_empty()).then(|| counts.into_iter().map(|(group, c)| (group.to_owned(), shares(c))).collect())
}
