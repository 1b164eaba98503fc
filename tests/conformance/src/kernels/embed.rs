//! `embed`: rows of an embedding table that may be cut into parts.

use std::fmt;

use fovea_runtime::{
    Error,
    network_ops::{Format, Weight, embed},
    read::read_f32,
};
use fovea_shaders::dequantise;

use super::{Operation, Outputs, Planned, output};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::{Numbers, stored, wide},
};

/// T ids, a table of parts with these numbers of rows, and its width.
#[derive(Clone, Debug)]
pub(crate) struct Embed {
    tokens: usize,
    parts: &'static [usize],
    width: usize,
    factor: f64,
    /// Whether the ids are the state of a decoding step: more words follow.
    state: bool,
    /// The format of a table of codes.
    codes: Option<Format>,
}

impl fmt::Display for Embed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, parts, width, factor, state, codes } = self;
        let parts = parts.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        write!(f, "embed t={tokens} parts={parts} c={width} factor={factor} state={state}")?;
        codes.map_or(Ok(()), |format| write!(f, " table={format}"))
    }
}

/// Shapes and their purposes.
pub(crate) fn cases() -> Vec<Planned<Embed>> {
    let case = |why, tokens, parts, width, factor| {
        Planned::new(why, Embed { tokens, parts, width, factor, state: false, codes: None })
    };
    let mut all = vec![
        case("one number", 1, &[1][..], 1, 1.0),
        case("odd rows", 7, &[11], 3, 1.0),
        case("odd rows, two parts", 9, &[1, 10], 5, 1.0),
        case("one element less than a workgroup has lanes, three parts", 11, &[4, 3, 4], 63, 1.0),
        case("Qwen2 0.5B", 67, &[97], 896, 1.0),
        case("CLIP ViT-L's channels, a factor", 5, &[31], 1024, 12.0),
        case("SigLIP So400m's channels, two parts", 5, &[16, 15], 1152, 1.0),
        case("a decoder of 7 billion, three parts and a factor", 67, &[33, 33, 7], 4096, 12.0),
        case("odd rows and a factor", 9, &[3, 4, 5], 5, 12.0),
    ];
    for parts in [&[37][..], &[20, 17]] {
        let step = Embed { tokens: 1, parts, width: 896, factor: 1.0, state: true, codes: None };
        all.push(Planned::new("a decoding step: the token is a word of the state", step));
    }
    all
}

/// The same for tables of codes, which have f32 as the only type of all other numbers.
pub(crate) fn codes() -> Vec<Planned<Embed>> {
    let mut all = Vec::new();
    for (why, format) in [
        ("8 bits", Format::Q8),
        ("4 bits", Format::Q4),
        ("4 bits with a minimum", Format { minimum: true, ..Format::Q4 }),
        ("8 bits, groups of 16", Format { group: 16, ..Format::Q8 }),
        ("4 bits, groups of 128: an odd number", Format { group: 128, ..Format::Q4 }),
        ("8 bits with a minimum, groups of 64", Format { minimum: true, group: 64, ..Format::Q8 }),
    ] {
        let of =
            |tokens, parts, width, factor, state| Embed { tokens, parts, width, factor, state, codes: Some(format) };
        all.extend([
            Planned::new(why, of(67, &[97][..], 896, 1.0, false)),
            Planned::new(why, of(11, &[4, 3, 4], 384, 12.0, false)),
            Planned::new(why, of(1, &[20, 17], 896, 1.0, true)),
        ]);
    }
    all
}

impl Embed {
    /// Ids and the table: floats, or words and scales.
    fn inputs(&self, half: bool) -> (Vec<usize>, Vec<f32>, [Vec<u32>; 2]) {
        let rows: usize = self.parts.iter().sum();
        let mut numbers = Numbers::of(&self.to_string());
        let (table, codes) = match self.codes {
            Some(format) => (vec![], numbers.codes(rows, self.width, 2.0, format)),
            None => (stored(numbers.floats(rows * self.width, 2.0), half), [vec![], vec![]]),
        };
        // The first and the last row of each part, some rows, and one id twice.
        let starts = self.parts.iter().scan(0, |end, count| {
            *end += count;
            Some([*end - count, *end - 1])
        });
        let mut ids: Vec<usize> = starts.flatten().take(self.tokens).collect();
        ids.extend((ids.len()..self.tokens).map(|_| numbers.below(rows)));
        if let [.., before, last] = &mut ids[..] {
            *last = *before;
        }
        (ids, table, codes)
    }

    /// Codes become numbers that are rounded once with a minimum; a zero has any sign.
    fn bound(&self) -> Bound {
        if self.factor == 1.0 && self.codes.is_none() { Bound::Exact } else { Bound::Nmse(1e-13) }
    }
}

impl Operation for Embed {
    const NAME: &'static str = "embed";

    fn tolerance(&self, _half: bool) -> String {
        match self.bound() {
            Bound::Exact => "exact: copies".into(),
            bound => format!("{bound}: one product and one sum in f32 have 1e-15"),
        }
    }

    async fn run(&self, half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let (mut ids, table, [words, scales]) = self.inputs(half);
        let mut first: usize = 0;
        let mut parts = Vec::new();
        for &rows in self.parts {
            let part = |width: usize| first * width..(first + rows) * width;
            parts.push(match self.codes {
                Some(format) => {
                    let (words, scales) =
                        (&words[part(format.words(self.width))], &scales[part(format.scale_words(self.width))]);
                    bed.codes(words, scales, self.width, format, false)
                }
                None => Weight::Float(bed.floats(&table[part(self.width)], [rows, self.width])),
            });
            first += rows;
        }
        if self.state {
            ids.extend([5, 6, 7, 0, 0, 0, 0]);
        }
        let out = embed(bed.indices(&ids), self.tokens, &parts, self.factor)?;
        Ok(Outputs::from([("out", read_f32(out).await?)]))
    }

    fn check(&self, half: bool, got: &Outputs) -> Vec<Comparison> {
        let (ids, table, [words, scales]) = self.inputs(half);
        let table = match self.codes {
            Some(format) => dequantise(&words, &scales, self.width, format),
            None => wide(&table),
        };
        let twin = fovea_shaders::embed(&ids, &table, self.width, self.factor);
        vec![self.bound().check("out", &twin, output(got, "out"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_cases_have_every_edge_of_their_parts() {
        let op = Embed { tokens: 11, parts: &[4, 3, 4], width: 63, factor: 1.0, state: false, codes: None };
        let (ids, ..) = op.inputs(false);
        assert_eq!(ids[..6], [0, 3, 4, 6, 7, 10]);
        assert!(ids.len() == 11 && ids[9] == ids[10] && ids.iter().all(|&id| id < 11));
    }
}
