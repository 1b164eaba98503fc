//! Finds the text that ends an answer. Input: the pieces of an answer. Output: the pieces without that text.
//!
//! A piece can end in the beginning of such a text, so its end is held back until the next piece decides.

/// An answer up to one of some texts.
pub(crate) struct Ending<'a> {
    stops: &'a [String],
    /// The answer so far; without `stops` always empty.
    text: String,
    /// Bytes of `text` that have been returned.
    shown: usize,
    reached: bool,
}

impl<'a> Ending<'a> {
    pub(crate) fn new(stops: &'a [String]) -> Self {
        Self { stops, text: String::new(), shown: 0, reached: false }
    }

    /// Whether one of the texts was found.
    pub(crate) fn is_reached(&self) -> bool {
        self.reached
    }

    /// The answer before the text that ends it; None if no text has ended it.
    pub(crate) fn text(&self) -> Option<&str> {
        self.reached.then_some(self.text.as_str())
    }

    /// Adds a piece; returns the text that is certainly part of the answer.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        if self.stops.is_empty() {
            return piece.to_owned();
        }
        if self.reached {
            return String::new();
        }
        self.text += piece;
        let open = &self.text[self.shown..];
        let found = self.stops.iter().filter_map(|stop| open.find(stop.as_str())).min();
        let sure = match found {
            Some(at) => {
                self.text.truncate(self.shown + at);
                self.reached = true;
                at
            }
            None => open.len() - self.held(open),
        };
        self.shown += sure;
        self.text[self.shown - sure..self.shown].to_owned()
    }

    /// What was held back, at the end of the answer.
    pub(crate) fn finish(&mut self) -> String {
        let rest = self.text[self.shown..].to_owned();
        self.shown = self.text.len();
        rest
    }

    /// Bytes at the end of `open` that may be the beginning of a text that ends the answer.
    fn held(&self, open: &str) -> usize {
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&open[*at..]));
        let at = open.char_indices().map(|(at, _)| at).find(begins);
        at.map_or(0, |at| open.len() - at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut ending = Ending::new(&stops);
        let mut shown: Vec<String> = pieces.iter().map(|piece| ending.push(piece)).collect();
        shown.push(ending.finish());
        (shown, ending.is_reached())
    }

    #[test]
    fn an_answer_ends_before_the_first_stop() {
        for (stops, pieces, expected, reached) in [
            (vec![], vec!["a", "b"], vec!["a", "b", ""], false),
            (vec!["\n"], vec!["one", "\ntwo", "x"], vec!["one", "", "", ""], true),
            // In two pieces, and a beginning that does not go on.
            (vec!["END"], vec!["aE", "NxE", "ND b"], vec!["a", "ENx", "", ""], true),
            (vec!["END"], vec!["aEN"], vec!["a", "EN"], false),
            // The first in the text counts, not the first in the list.
            (vec!["two", "one"], vec!["a one two"], vec!["a ", ""], true),
            (vec!["ab", "bc"], vec!["ab"], vec!["", ""], true),
            (vec!["éa"], vec!["é", "é", "a"], vec!["", "é", "", ""], true),
        ] {
            let (shown, got) = run(&stops, &pieces);
            assert_eq!(
                (shown, got),
                (expected.iter().map(ToString::to_string).collect(), reached),
                "{stops:?} {pieces:?}"
            );
        }
    }
}
