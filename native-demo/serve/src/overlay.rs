//! The attention overlays of the last answers. Input: the files of the pictures and which tokens were kept. Output: PNG
//! files, drawn when they are first requested.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use fovea_model::{Looked, Origin, Picture};

use crate::job::Problem;

/// Most bytes of all overlays: files, tokens and drawings.
const MOST_BYTES: usize = 64 << 20;

/// The overlays of one answer, one per picture.
pub struct Overlay {
    pictures: Vec<One>,
}

struct One {
    /// The file as it was sent: smaller than its pixels.
    file: Arc<[u8]>,
    looked: Arc<Looked>,
    drawn: OnceLock<Arc<[u8]>>,
    /// Locked while it is drawn, so that two requests do not draw it twice. [`Overlay::bytes`] does not wait for it.
    drawing: Mutex<()>,
}

impl Overlay {
    /// The overlays of pictures, which are not drawn yet.
    pub fn new(files: &[Arc<[u8]>], looked: &[Arc<Looked>]) -> Self {
        let one = |(file, looked): (&Arc<[u8]>, &Arc<Looked>)| One {
            file: file.clone(),
            looked: looked.clone(),
            drawn: OnceLock::new(),
            drawing: Mutex::default(),
        };
        Self { pictures: files.iter().zip(looked).map(one).collect() }
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    /// The overlay of a picture, from 0, as a PNG file. Drawing takes up to some seconds: not for an async task.
    ///
    /// # Errors
    /// [`Problem`] with status 404 if there is no such picture, 500 if it cannot be drawn.
    pub fn png(&self, picture: usize) -> Result<Arc<[u8]>, Problem> {
        let Some(one) = self.pictures.get(picture) else {
            let message = format!("expected a picture below {}, counted from 0, got {picture}", self.len());
            return Err(Problem { status: 404, ..Problem::request("not_found", Some("picture"), message) });
        };
        let _drawing = one.drawing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(drawn) = one.drawn.get() {
            return Ok(drawn.clone());
        }
        let draw = || fovea_overlay::png(&fovea_overlay::draw(&Picture::decode(&one.file)?, &one.looked)?);
        let drawn = draw().map_err(|error| Problem::server(500, "overlay", error.to_string()))?;
        Ok(one.drawn.get_or_init(|| drawn.into()).clone())
    }

    /// Bytes of the files, the tokens and the drawings.
    fn bytes(&self) -> usize {
        let of = |one: &One| {
            let looked = &one.looked;
            let tokens = looked.origins.len() * size_of::<Origin>()
                + looked.importance.len() * size_of::<f32>()
                + (looked.kept.len() + looked.choice.len()) * size_of::<usize>();
            one.file.len() + tokens + one.drawn.get().map_or(0, |drawn| drawn.len())
        };
        self.pictures.iter().map(of).sum()
    }
}

/// The overlays of the last answers, by the id of the answer.
pub struct Overlays {
    /// Most answers.
    most: usize,
    /// The oldest comes first.
    kept: Mutex<VecDeque<(String, Arc<Overlay>)>>,
}

impl Overlays {
    /// Keeps at most `most` answers.
    pub fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    /// Adds the overlay of an answer. The oldest ones are removed where there are too many, or too many bytes; one that is
    /// larger than the limit is kept until the next one.
    pub fn add(&self, id: &str, overlay: Overlay) {
        if self.most == 0 || overlay.is_empty() {
            return;
        }
        let mut kept = self.kept();
        kept.retain(|(other, _)| other != id);
        kept.push_back((id.to_owned(), Arc::new(overlay)));
        self.bound(&mut kept);
    }

    /// Removes the oldest ones where there are too many bytes. To be called after a drawing, which adds some.
    pub fn trim(&self) {
        self.bound(&mut self.kept());
    }

    fn bound(&self, kept: &mut VecDeque<(String, Arc<Overlay>)>) {
        let mut bytes: usize = kept.iter().map(|(_, overlay)| overlay.bytes()).sum();
        while kept.len() > self.most || (bytes > MOST_BYTES && kept.len() > 1) {
            let Some((_, oldest)) = kept.pop_front() else { break };
            bytes -= oldest.bytes().min(bytes);
        }
    }

    /// The overlay of an answer, if it is kept.
    pub fn get(&self, id: &str) -> Option<Arc<Overlay>> {
        self.kept().iter().find(|(other, _)| other == id).map(|(_, overlay)| overlay.clone())
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(String, Arc<Overlay>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use fovea_model::Grid;

    use super::*;

    fn looked() -> Arc<Looked> {
        Arc::new(Looked {
            grid: Grid::default(),
            compression: "none".into(),
            window: 4,
            scales: Arc::default(),
            choice: Arc::default(),
            origins: Arc::default(),
            importance: Vec::new(),
            kept: Vec::new(),
        })
    }

    fn overlay(file: Vec<u8>) -> Overlay {
        Overlay::new(&[file.into()], &[looked()])
    }

    #[test]
    fn an_overlay_is_drawn_once() {
        let picture = Picture::from_rgb(40, 30, vec![120; 40 * 30 * 3]).expect("a picture");
        let overlay = overlay(fovea_overlay::png(&picture).expect("a PNG file"));
        let before = overlay.bytes();
        let drawn = overlay.png(0).expect("a drawing");
        assert!(drawn.starts_with(b"\x89PNG"), "expected a PNG file");
        assert!(Arc::ptr_eq(&drawn, &overlay.png(0).expect("a drawing")), "expected the same drawing");
        assert_eq!(overlay.bytes(), before + drawn.len(), "bytes (got, expected)");
        assert_eq!(overlay.png(1).map_err(|why| why.status), Err(404), "(got, expected)");
    }

    #[test]
    fn a_broken_file_is_an_error() {
        assert_eq!(overlay(b"no picture".to_vec()).png(0).map_err(|why| why.status), Err(500), "(got, expected)");
    }

    #[test]
    fn the_oldest_is_removed_by_number_and_by_bytes() {
        let overlays = Overlays::new(2);
        for id in ["a", "b", "c"] {
            overlays.add(id, overlay(vec![0; 10]));
        }
        let has = |overlays: &Overlays| ["a", "b", "c", "d"].map(|id| overlays.get(id).is_some());
        assert_eq!(has(&overlays), [false, true, true, false], "(got, expected)");
        overlays.add("d", overlay(vec![0; MOST_BYTES - 5]));
        assert_eq!(has(&overlays), [false, false, false, true], "(got, expected)");
        overlays.add("a", overlay(vec![0; 5]));
        assert_eq!(has(&overlays), [true, false, false, true], "(got, expected)");
        overlays.add("b", Overlay::new(&[], &[]));
        assert!(overlays.get("b").is_none(), "an answer without pictures has no overlay");
    }

    #[test]
    fn a_drawing_counts_at_once() {
        let overlays = Overlays::new(2);
        let picture = Picture::from_rgb(40, 30, vec![120; 40 * 30 * 3]).expect("a picture");
        let drawn = overlay(fovea_overlay::png(&picture).expect("a PNG file"));
        overlays.add("a", overlay(vec![0; MOST_BYTES - drawn.bytes()]));
        overlays.add("b", drawn);
        assert!(overlays.get("a").is_some(), "expected both before the drawing");
        overlays.get("b").expect("it is kept").png(0).expect("a drawing");
        overlays.trim();
        assert!(overlays.get("a").is_none() && overlays.get("b").is_some(), "expected the newer one");
    }

    #[test]
    fn none_is_kept_if_none_is_wanted() {
        let overlays = Overlays::new(0);
        overlays.add("a", overlay(vec![0; 10]));
        assert!(overlays.get("a").is_none());
    }
}
