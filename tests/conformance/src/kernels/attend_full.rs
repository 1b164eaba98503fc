//! `attend_full`: attention of each token of a tile over all tokens of its tile.

use std::fmt;

use fovea_runtime::{
    Error,
    network_ops::{Heads, attend_full},
    read::read_f32,
};

use super::{Operation, Outputs, Planned, output};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::{Numbers, wide},
};

/// The values of queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// Numbers around zero.
    Spread,
    /// Scores up to about 100: unless the maximum is subtracted, their exponentials overflow.
    Steep,
    /// Scores ln 1, ln 3, ln 4 of values 8, 16, 32.
    Hand,
}

/// Tiles of T tokens, and heads (H, D).
#[derive(Clone, Debug)]
pub(crate) struct AttendFull {
    tiles: usize,
    tokens: usize,
    heads: usize,
    width: usize,
    values: Values,
}

impl fmt::Display for AttendFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tiles, tokens, heads, width, values } = self;
        let values = format!("{values:?}").to_lowercase();
        write!(f, "attend_full tiles={tiles} t={tokens} h={heads} d={width} values={values}")
    }
}

/// Shapes (tiles, T, H, D) and their purposes.
pub(crate) fn cases() -> Vec<Planned<AttendFull>> {
    let op = |[tiles, tokens, heads, width]: [usize; 4], values| AttendFull { tiles, tokens, heads, width, values };
    let mut all: Vec<Planned<AttendFull>> = [
        ("one token, one pack", [1, 1, 1, 4]),
        ("no kernel: a head's width is no multiple of four", [2, 5, 3, 6]),
        ("one token per tile", [3, 1, 2, 64]),
        ("one step of keys", [2, 32, 2, 64]),
        ("one key more, one row more than half a block", [2, 33, 2, 64]),
        ("a block of rows", [1, 64, 2, 64]),
        ("one row more", [2, 65, 2, 64]),
        ("a prime number of tokens, SigLIP's width", [3, 97, 2, 72]),
        ("a width of 80", [2, 67, 3, 80]),
        ("a width of 96", [2, 67, 3, 96]),
        ("a width of 128", [2, 67, 3, 128]),
        ("many tokens of SigLIP's width", [1, 521, 1, 72]),
        ("many tokens of a width of 128", [1, 521, 1, 128]),
        ("two tiles of CLIP-336", [2, 577, 1, 64]),
    ]
    .map(|(why, shape)| Planned::new(why, op(shape, Values::Spread)))
    .into();
    all.push(Planned::new("computed by hand", op([2, 3, 1, 4], Values::Hand)));
    all.push(Planned::new("scores whose exponentials overflow", op([2, 71, 2, 64], Values::Steep)));
    let clip = op([5, 577, 16, 64], Values::Spread);
    all.push(Planned::large("the largest canvas of LLaVA-NeXT, CLIP-336", clip));
    all.push(Planned::large("one tile of SigLIP", op([1, 729, 16, 72], Values::Spread)));
    all
}

impl AttendFull {
    /// `qkv`.
    fn inputs(&self) -> Vec<f32> {
        let Self { tiles, tokens, heads, width, values } = *self;
        let mut numbers = Numbers::of(&self.to_string());
        let count = tiles * tokens * 3 * heads * width;
        match values {
            Values::Spread => numbers.floats(count, 2.0),
            // The standard deviation of the scores is 10^2 / 3, for each width.
            Values::Steep => numbers.floats(count, 10.0),
            Values::Hand => (0..tiles)
                .flat_map(|_| [(1f32, 8.0), (3.0, 16.0), (4.0, 32.0)])
                .flat_map(|(share, value)| [[2.0, 0.0, 0.0, 0.0], [share.ln(), 0.0, 0.0, 0.0], [value, 0.0, 0.0, 0.0]])
                .flatten()
                .collect(),
        }
    }
}

/// The bound.
const BOUND: Bound = Bound::Nmse(1e-9);

impl Operation for AttendFull {
    const NAME: &'static str = "attend_full";

    fn tolerance(&self, _half: bool) -> String {
        format!("{BOUND}: f32 sums have an NMSE of 1e-13, and exponentials of scores of 100 have 1e-11")
    }

    fn has_kernel(&self) -> bool {
        self.width.is_multiple_of(4)
    }

    async fn run(&self, _half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let Self { tiles, tokens, heads, width, .. } = *self;
        let qkv = bed.full(&self.inputs(), [tiles * tokens, 3 * heads * width]);
        let out = attend_full(qkv, tiles, Heads { query: heads, key: heads, width })?;
        Ok(Outputs::from([("attended", read_f32(out).await?)]))
    }

    fn check(&self, half: bool, got: &Outputs) -> Vec<Comparison> {
        let Self { tokens, heads, width, .. } = *self;
        let (row, factor) = (heads * width, 1.0 / (width as f64).sqrt());
        let mut twin = Vec::new();
        for tile in wide(&self.inputs()).chunks_exact(tokens * 3 * row) {
            // Queries are (T, H D), keys and values (H, T, D).
            let query: Vec<f64> = tile.chunks_exact(3 * row).flat_map(|token| &token[..row]).copied().collect();
            let side = |part: usize| -> Vec<f64> {
                let of = |h: usize| tile.chunks_exact(3 * row).flat_map(move |t| &t[part * row + h * width..][..width]);
                (0..heads).flat_map(of).copied().collect()
            };
            let shape = [heads, heads, width];
            twin.extend(fovea_shaders::attention(&query, &side(1), &side(2), [tokens; 2], shape, factor, false));
        }
        let attended = output(got, "attended");
        let mut checked = vec![BOUND.check("attended", &twin, attended)];
        if self.values == Values::Hand && !half {
            // Shares of 1/8, 3/8 and 4/8.
            let first: Vec<f32> = attended.iter().copied().step_by(width).collect();
            checked.push(Bound::Abs(1e-5).check("attended, by hand", &[23.0; 6], &first));
        }
        checked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_another_tile_is_a_fault() {
        let op = AttendFull { tiles: 2, tokens: 3, heads: 1, width: 4, values: Values::Hand };
        let fault = |values: [f32; 6]| {
            let attended = values.iter().flat_map(|&value| [value, 0.0, 0.0, 0.0]).collect();
            op.check(false, &Outputs::from([("attended", attended)])).into_iter().find_map(|checked| checked.fault)
        };
        assert_eq!(fault([23.0; 6]), None);
        assert!(fault([23.0, 23.0, 23.0, 23.0, 23.0, 23.1]).is_some());
        assert!(fault([23.0, 23.0, f32::NAN, 23.0, 23.0, 23.0]).is_some());
    }
}
