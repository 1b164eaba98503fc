//! `compact`: the chosen tokens in scanline order, with their newlines and boxes.

use std::fmt;

use burn::tensor::Transaction;
use fovea_runtime::{
    Error, Scale,
    read::{into_f32, into_indices, read_all},
    sampler_ops::{compact, region_pool},
};
use fovea_shaders::{Cell, MAX_SCALES, MAX_WINDOW, regions};

use super::{Operation, Outputs, Planned, REFUSED, SEVEN, Scales, output, refusal, twenty, whole};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::{Numbers, stored, wide},
};

/// The scale choices of the regions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Choices {
    /// A given choice per region.
    Hand(&'static [usize]),
    /// The same choice for all regions.
    All(usize),
    /// Random choices.
    Drawn,
    /// Random choices, but none for the last region, as `scale_select` returns if a logit is not finite.
    Missing,
}

/// A feature map, scales, and a choice for every region.
#[derive(Clone, Debug)]
pub(crate) struct Compact {
    /// Height, width, channels.
    map: [usize; 3],
    window: usize,
    scales: Vec<Scale>,
    choices: Choices,
    newlines: bool,
}

impl fmt::Display for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map: [h, w, c], window, scales, choices, newlines } = self;
        write!(f, "compact map={h}x{w}x{c} window={window} scales={} choices=", Scales(scales))?;
        match choices {
            Choices::Hand(_) => f.write_str("hand"),
            Choices::All(index) => write!(f, "{index}"),
            Choices::Drawn => f.write_str("drawn"),
            Choices::Missing => f.write_str("missing"),
        }?;
        f.write_str(if *newlines { "" } else { " newlines=none" })
    }
}

/// A region that emits no token.
const DROP: Scale = Scale::new(0, 0);
const KEEP: Scale = Scale::new(1, 1);

/// Shapes and their purposes.
pub(crate) fn cases() -> Vec<Planned<Compact>> {
    let case = |why, map, window, scales: &[Scale], choices| {
        Planned::new(why, Compact { map, window, scales: scales.to_vec(), choices, newlines: true })
    };
    let three = &SEVEN[..3];
    let bare = |why, map, window, scales: &[Scale], choices| {
        Planned::new(why, Compact { map, window, scales: scales.to_vec(), choices, newlines: false })
    };
    let drawn = Choices::Drawn;
    vec![
        // Regions [[1x1, 2x2], [4x4, 2x2]]: 16 + 4 + 1 + 2 tokens; rows 0 to 4 contain tokens.
        case("23 tokens and 5 newlines, computed by hand", [6, 8, 4], 4, three, Choices::Hand(&[2, 1, 0, 1])),
        case("one patch", [1, 1, 1], 4, three, Choices::All(0)),
        case("every patch is a token: raster order and newlines", [7, 11, 8], 4, three, Choices::All(2)),
        case("one token per region", [24, 24, 64], 4, three, Choices::All(0)),
        case("everything dropped: no token, no newline", [5, 6, 4], 1, &[DROP, KEEP], Choices::All(0)),
        case("drop or keep, patch by patch", [24, 24, 64], 1, &[DROP, KEEP], drawn),
        case("rows without tokens get no newline", [16, 4, 8], 4, &[DROP, Scale::new(4, 4), KEEP], drawn),
        case("the paper's seven scales, a large canvas", [48, 48, 64], 4, &SEVEN, drawn),
        case("partial regions, seven scales, channels read one by one", [7, 11, 5], 4, &SEVEN, drawn),
        case("a window that no scale divides", [10, 8, 12], 3, &SEVEN, drawn),
        case("a larger window", [25, 13, 16], 12, &SEVEN, drawn),
        case("the largest window", [18, 33, 4], MAX_WINDOW, &SEVEN, drawn),
        case("one row less than a block of the prefix sum", [255, 3, 4], 4, three, drawn),
        case("a block of the prefix sum", [256, 3, 4], 4, three, drawn),
        case("one row more", [257, 3, 4], 4, three, drawn),
        case("three blocks of rows, some without a token", [600, 3, 1], 2, &[DROP, Scale::new(2, 2), KEEP], drawn),
        case("one row of regions, wider than high", [3, 300, 4], 4, three, drawn),
        case("a prime number of channels", [12, 12, 3], 4, three, drawn),
        case("one channel more than a workgroup has lanes", [12, 12, 65], 4, three, drawn),
        case("one pack more than a workgroup has lanes", [9, 6, 260], 4, three, drawn),
        case("the channels of a decoder of 7 billion", [12, 12, 4096], 4, three, drawn),
        case("more scales than a launch takes", [11, 9, 12], 8, &twenty(), drawn),
        case("a region without a choice is an error", [9, 8, 4], 4, three, Choices::Missing),
        case("SigLIP's odd tile", [27, 27, 64], 4, three, drawn),
        bare("SigLIP's odd tile in a family without newlines", [27, 27, 64], 4, three, drawn),
        bare("a tile of SmolVLM", [8, 8, 12], 4, three, drawn),
        bare("everything dropped, no newlines", [5, 6, 4], 1, &[DROP, KEEP], Choices::All(0)),
        bare("drop or keep, no newlines", [24, 24, 65], 1, &[DROP, KEEP], drawn),
        Planned::large(
            "LLaVA-NeXT 7B's largest canvas",
            Compact { map: [48, 48, 4096], window: 4, scales: three.to_vec(), choices: drawn, newlines: true },
        ),
    ]
}

struct Inputs {
    map: Vec<f32>,
    newline: Vec<f32>,
    choice: Vec<usize>,
}

impl Compact {
    fn inputs(&self, half: bool) -> Inputs {
        let mut numbers = Numbers::of(&self.to_string());
        let [height, width, c] = self.map;
        let map = stored(numbers.floats(height * width * c, 4.0), half);
        let newline = stored(numbers.floats(c, 4.0), half);
        let places = regions(height, width, self.window).len();
        let mut draw = || (0..places).map(|_| numbers.below(self.scales.len())).collect::<Vec<usize>>();
        let choice = match self.choices {
            Choices::Hand(choice) => choice.to_vec(),
            Choices::All(index) => vec![index; places],
            Choices::Drawn => draw(),
            Choices::Missing => {
                let mut choice = draw();
                choice[places - 1] = self.scales.len();
                choice
            }
        };
        Inputs { map, newline, choice }
    }

    /// The pooled scales: the whole region, and every scale that pools.
    fn pooled_at(&self) -> Vec<Scale> {
        let mut at = vec![Scale::new(self.window, self.window)];
        for &scale in self.scales.iter().filter(|s| !s.drops() && **s != KEEP) {
            if !at.contains(&scale) {
                at.push(scale);
            }
        }
        at
    }
}

impl Operation for Compact {
    const NAME: &'static str = "compact";

    fn tolerance(&self, _half: bool) -> String {
        "exact: copies, integers and counts. On the CPU the host computes the order with the twin itself".into()
    }

    fn has_kernel(&self) -> bool {
        self.scales.len() <= MAX_SCALES
    }

    async fn run(&self, half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let inputs = self.inputs(half);
        let map = bed.floats(&inputs.map, self.map);
        let newline = bed.floats(&inputs.newline, [self.map[2]]);
        let choice = bed.indices(&inputs.choice);
        let pooled = region_pool(map.clone(), self.window, &self.pooled_at())?;
        let compacted = match compact(map, &pooled, self.newlines.then_some(newline), choice, &self.scales).await {
            Ok(compacted) => compacted,
            Err(Error::NoChoice { .. }) => return Ok(Outputs::from([(REFUSED, vec![1.0])])),
            Err(other) => return Err(other),
        };
        let (mut tokens, mut boxes, mut counts) = (Vec::new(), Vec::new(), [0, 0]);
        if let Some(compacted) = compacted {
            let reads = Transaction::default().register(compacted.tokens).register(compacted.boxes);
            let mut read = read_all(reads).await?.into_iter();
            tokens = read.next().map_or_else(Vec::new, into_f32);
            boxes = whole(read.next().map_or_else(Vec::new, into_indices));
            counts = [compacted.counts.tokens, compacted.counts.newlines];
        }
        Ok(Outputs::from([("tokens", tokens), ("boxes", boxes), ("counts", whole(counts)), (REFUSED, vec![0.0])]))
    }

    fn check(&self, half: bool, got: &Outputs) -> Vec<Comparison> {
        let refused = refusal(got, self.choices == Choices::Missing);
        if self.choices == Choices::Missing {
            return vec![refused];
        }
        let ([height, width, c], inputs) = (self.map, self.inputs(half));
        let map = wide(&inputs.map);
        let mut cells = fovea_shaders::compact(height, width, self.window, &self.scales, &inputs.choice);
        cells.retain(|(_, cell)| self.newlines || *cell != Cell::Newline);
        let at_scale: Vec<_> =
            self.scales.iter().map(|&s| fovea_shaders::region_pool(&map, self.map, self.window, s)).collect();
        let mut tokens = Vec::with_capacity(cells.len() * c);
        for (_, cell) in &cells {
            match *cell {
                Cell::Newline => tokens.extend(wide(&inputs.newline)),
                Cell::Pooled { region, row, col } => {
                    let ((_, cols), values) = &at_scale[inputs.choice[region]][region];
                    tokens.extend_from_slice(&values[(row * cols + col) * c..][..c]);
                }
            }
        }
        let boxes = whole(cells.iter().flat_map(|(token_box, _)| *token_box));
        let newlines = cells.iter().filter(|(_, cell)| *cell == Cell::Newline).count();
        vec![
            refused,
            Bound::Exact.check("counts", &whole([cells.len(), newlines]), output(got, "counts")),
            Bound::Exact.check("boxes", &boxes, output(got, "boxes")),
            Bound::Exact.check("tokens", &tokens, output(got, "tokens")),
        ]
    }
}
