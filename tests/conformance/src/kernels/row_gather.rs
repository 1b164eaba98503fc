//! `row_gather`: rows picked by index, the same from every batch.

use std::fmt;

use fovea_runtime::{Error, read::read_f32, sampler_ops::row_gather};

use super::{Operation, Outputs, Planned, output};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::{Numbers, stored},
};

/// The indices of the rows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Indices {
    /// About a third of all rows, ascending, without repetition, as `top_k` keeps them.
    Rising,
    /// More indices than rows, in random order, some twice.
    Drawn,
    /// The last and the first.
    Ends,
}

/// (batches, rows, width) and indices.
#[derive(Clone, Debug)]
pub(crate) struct RowGather {
    batches: usize,
    rows: usize,
    width: usize,
    indices: Indices,
}

impl fmt::Display for RowGather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batches, rows, width, indices } = self;
        let indices = format!("{indices:?}").to_lowercase();
        write!(f, "row_gather batches={batches} rows={rows} width={width} indices={indices}")
    }
}

/// Shapes (batches, rows, width) and their purposes.
pub(crate) fn cases() -> Vec<Planned<RowGather>> {
    let case = |why, [batches, rows, width]: [usize; 3], indices| {
        Planned::new(why, RowGather { batches, rows, width, indices })
    };
    let mut all = vec![
        case("one number", [1, 1, 1], Indices::Ends),
        case("a prime number of rows, one by one", [1, 7, 3], Indices::Drawn),
        case("one pack per row", [1, 257, 4], Indices::Drawn),
        case("hidden states of the fixtures", [1, 64, 64], Indices::Rising),
        case("rotary tables", [1, 2988, 64], Indices::Rising),
        case("hidden states of a decoder of 7 billion", [1, 97, 4096], Indices::Drawn),
        case("keys of a small decoder", [8, 257, 64], Indices::Rising),
        case("batches of rows of three", [24, 31, 3], Indices::Drawn),
        case("keys of SmolVLM 256M, one tile", [3, 64, 64], Indices::Rising),
        case("hidden states of Qwen2 0.5B, SigLIP's odd tile", [1, 729, 896], Indices::Rising),
        case("keys and values of Qwen2 0.5B, LLaVA-OneVision's largest map", [2, 7371, 64], Indices::Rising),
        case("both ends of every batch", [24, 31, 128], Indices::Ends),
        case("keys and values of Llama 3 8B, all tokens of a picture", [8, 2928, 128], Indices::Rising),
    ];
    let wide = RowGather { batches: 1, rows: 2988, width: 4096, indices: Indices::Rising };
    all.push(Planned::large("hidden states of LLaVA-NeXT 7B's largest canvas", wide));
    all
}

impl RowGather {
    /// Rows and indices.
    fn inputs(&self, half: bool) -> (Vec<f32>, Vec<usize>) {
        let Self { batches, rows, width, indices } = *self;
        let mut numbers = Numbers::of(&self.to_string());
        let values = stored(numbers.floats(batches * rows * width, 8.0), half);
        let at = match indices {
            // Always contains the last row, so that the list is not empty.
            Indices::Rising => (0..rows).filter(|&i| i + 1 == rows || numbers.below(3) == 0).collect(),
            Indices::Drawn => (0..rows + rows / 2 + 1).map(|_| numbers.below(rows)).collect(),
            Indices::Ends => vec![rows - 1, 0],
        };
        (values, at)
    }
}

impl Operation for RowGather {
    const NAME: &'static str = "row_gather";

    fn tolerance(&self, _half: bool) -> String {
        "exact: copies".into()
    }

    async fn run(&self, half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let (values, at) = self.inputs(half);
        let rows = bed.floats(&values, [self.batches, self.rows, self.width]);
        let picked = row_gather(rows, bed.indices(&at))?;
        Ok(Outputs::from([("picked", read_f32(picked).await?)]))
    }

    fn check(&self, half: bool, got: &Outputs) -> Vec<Comparison> {
        let (values, at) = self.inputs(half);
        let twin = fovea_shaders::row_gather(&values, [self.batches, self.rows, self.width], &at);
        vec![Bound::Exact.check("picked", &twin, output(got, "picked"))]
    }
}
