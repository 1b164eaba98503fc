//! Input: answers about drawn scenes, which know where their objects are. Output: what each token shows, the share of the
//! queried object's tokens that was kept, and the scales of regions with text.

use std::collections::{BTreeMap, HashSet};

use fovea_eval::{
    modes::{Answer, Mode, Row},
    page::percent,
};
use fovea_model::{Looked, TokenPart, VisualToken, Within};
use fovea_runtime::TokenBox;
use fovea_scenes::Scene;
use serde_json::json;

use crate::scenes::Drawn;

/// What a visual token shows, for a question about one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The queried object, perhaps with others.
    Queried,
    /// Another object.
    Others,
    /// No object.
    Background,
    /// The whole picture or a tile: a token of the thumbnail, or the class token of a tile.
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

/// Means of shares over questions, in the order of [`On::ALL`].
#[derive(Clone, Default)]
pub struct Shares {
    sums: [f64; On::ALL.len()],
    questions: usize,
}

impl Shares {
    /// One question: an amount per token, and what the token shows.
    pub fn add(&mut self, tokens: &[(On, f64)]) {
        let all: f64 = tokens.iter().map(|(_, much)| much).sum();
        for (on, sum) in On::ALL.iter().zip(&mut self.sums) {
            *sum += tokens.iter().filter(|(what, _)| what == on).map(|(_, much)| much).sum::<f64>() / all;
        }
        self.questions += 1;
    }

    /// Whether there is no question.
    pub fn is_empty(&self) -> bool {
        self.questions == 0
    }

    /// Names and means, NaN without questions. Without `objects` all tokens of the map are one kind.
    pub fn means(&self, objects: bool) -> Vec<(String, f64)> {
        let mean = |(on, sum): (&On, &f64)| (on.name().to_owned(), sum / self.questions as f64);
        let mut values: Vec<(String, f64)> = On::ALL.iter().zip(&self.sums).map(mean).collect();
        if !objects {
            values.drain(..2);
            values[0].0 = "map".to_owned();
        }
        values
    }
}

/// The owner of each patch of a scene's canvas; None if the model puts pictures on other canvases than those of scenes.
fn owners(scene: &Scene, looked: &Looked) -> Option<Vec<Option<usize>>> {
    let owners = scene.patch_owners();
    let grid = looked.grid;
    (owners.len() == grid.rows * grid.cols * grid.patches * grid.patches).then_some(owners)
}

/// The objects on some rectangles of patches of the map, each once.
fn objects(owners: &[Option<usize>], looked: &Looked, rectangles: &[TokenBox]) -> Vec<usize> {
    let grid = looked.grid;
    let width = grid.cols * grid.patches;
    let mut objects = Vec::new();
    let patches = |&[y0, x0, y1, x1]: &TokenBox| (y0..y1).flat_map(move |y| (x0..x1).map(move |x| (y, x)));
    for (y, x) in rectangles.iter().flat_map(patches) {
        let owner = owners.get((y + grid.top) * width + x + grid.left).copied().flatten();
        objects.extend(owner.filter(|o| !objects.contains(o)));
    }
    objects
}

/// What each visual token shows; `map` decides for tokens of the map.
fn shows(looked: &Looked, map: impl Fn(&[TokenBox]) -> On) -> Vec<On> {
    let on = |token: VisualToken| match token.part {
        TokenPart::Map => map(&token.patches),
        TokenPart::Newline => On::Newline,
        TokenPart::Thumbnail | TokenPart::Class => On::Thumbnail,
    };
    looked.tokens().into_iter().map(on).collect()
}

/// The part of the sequence that each visual token belongs to; the whole map as [`On::Background`].
pub fn parts(looked: &Looked) -> Vec<On> {
    shows(looked, |_| On::Background)
}

/// What each visual token shows of a scene, for a question about the object `target`; None if the model puts pictures on other
/// canvases than those of scenes.
pub fn tokens(scene: &Scene, target: Option<usize>, looked: &Looked) -> Option<Vec<On>> {
    let owners = owners(scene, looked)?;
    let map = |patches: &[TokenBox]| match objects(&owners, looked, patches) {
        found if target.is_some_and(|target| found.contains(&target)) => On::Queried,
        found if !found.is_empty() => On::Others,
        _ => On::Background,
    };
    Some(shows(looked, map))
}

/// Adds to the JSON of rows what only scenes have: `kept` with a method that drops tokens inside the model, `scales` with the
/// vision-guided sampler. Returns the same as lines of text.
pub fn add(rows: &mut [Row], modes: &[Mode], answers: &[Vec<Answer>], drawn: &[Drawn]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut of_scales = None;
    for ((row, mode), answers) in rows.iter_mut().zip(modes).zip(answers) {
        let Some(compression) = &mode.options.compression else { continue };
        if compression.within != Within::Every
            && let Some([queried, others, background]) = kept(answers, drawn)
        {
            let [q, o, b] = [queried, others, background].map(percent);
            notes.push(format!("{}: kept of the queried object {q} %, of others {o} %, of background {b} %", row.mode));
            let kept = json!({ "queried": queried, "others": others, "background": background });
            row.more.insert("kept".to_owned(), kept);
        }
        if compression.samples_vision()
            && let Some(scales) = scales(answers, drawn)
        {
            row.more.insert("scales".to_owned(), json!(scales));
            of_scales.get_or_insert((row.mode.clone(), scales));
        }
    }
    if let Some((mode, scales)) = of_scales {
        notes.push(format!("{mode}: regions at each scale, in the order of the config, %:"));
        let shares = |shares: Vec<f64>| shares.into_iter().map(percent).collect::<Vec<_>>().join(" / ");
        notes.extend(scales.into_iter().map(|(on, found)| format!("  {on}: {}", shares(found))));
    }
    notes
}

/// Shares of the map's tokens that were kept inside the model, over all questions about one object: on the queried
/// object, on others, on no object. A token on the queried object and on another counts as the queried one's. None without
/// scenes.
fn kept(answers: &[Answer], drawn: &[Drawn]) -> Option<[f64; 3]> {
    // (kept, all) of queried, others, background
    let mut counts = [(0usize, 0usize); 3];
    for answer in answers {
        let Some(Drawn { scene, targets }) = drawn.get(answer.sample) else { continue };
        let Some(looked) = answer.turn.looked.first() else { continue };
        let Some(on) = targets[answer.question].and_then(|target| tokens(scene, Some(target), looked)) else {
            continue;
        };
        for (token, on) in looked.tokens().iter().zip(on) {
            if let Some(group) = On::ALL[..3].iter().position(|group| *group == on) {
                counts[group].0 += usize::from(token.kept);
                counts[group].1 += 1;
            }
        }
    }
    (counts[0].1 > 0).then(|| counts.map(|(kept, all)| kept as f64 / all.max(1) as f64))
}

/// Shares of the regions at each scale, in the order of the config, by what is in them: `background`, `shapes`, `one text`,
/// `several texts`. None without scenes.
fn scales(answers: &[Answer], drawn: &[Drawn]) -> Option<BTreeMap<&'static str, Vec<f64>>> {
    let mut counts: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for answer in answers {
        let Some(Drawn { scene, .. }) = drawn.get(answer.sample) else { continue };
        // The scales depend only on the picture.
        if !seen.insert(answer.sample) {
            continue;
        }
        let Some(looked) = answer.turn.looked.first() else { continue };
        let Some(owners) = owners(scene, looked) else { continue };
        for (&choice, region) in looked.choice.iter().zip(looked.regions()) {
            let objects = objects(&owners, looked, &[region]);
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
    (!counts.is_empty()).then(|| counts.into_iter().map(|(group, c)| (group, shares(c))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_means_of_shares() {
        let mut shares = Shares::default();
        shares.add(&[(On::Queried, 3.0), (On::Background, 1.0)]);
        shares.add(&[(On::Queried, 1.0), (On::Thumbnail, 1.0), (On::Newline, 2.0)]);
        let values: Vec<f64> = shares.means(true).into_iter().map(|(_, v)| v).collect();
        assert_eq!(values, [0.5, 0.0, 0.125, 0.125, 0.25], "queried, others, background, thumbnail, newlines");
        let plain = shares.means(false);
        assert_eq!(plain[0], ("map".to_owned(), 0.125));
        assert_eq!(plain.len(), 3);
    }
}
