//! `region_pool`: all regions of a feature map at all scales.

use std::fmt;

use fovea_runtime::{Error, Scale, read::read_f32, sampler_ops::region_pool};
use fovea_shaders::{MAX_WINDOW, PoolLayout};

use super::{Operation, Outputs, Planned, SEVEN, Scales, output, twenty};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::{Numbers, stored, wide},
};

/// The values of the map.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values {
    /// Numbers around zero.
    Spread,
    /// Numbers far below zero, down to near the type's least: padding must never win.
    Negative,
}

/// A feature map, a window and scales.
#[derive(Clone, Debug)]
pub(crate) struct RegionPool {
    /// Height, width, channels.
    map: [usize; 3],
    window: usize,
    scales: Vec<Scale>,
    values: Values,
}

impl fmt::Display for RegionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map: [h, w, c], window, scales, values } = self;
        let values = match values {
            Values::Spread => "spread",
            Values::Negative => "negative",
        };
        write!(f, "region_pool map={h}x{w}x{c} window={window} scales={} values={values}", Scales(scales))
    }
}

/// Shapes and their purposes.
pub(crate) fn cases() -> Vec<Planned<RegionPool>> {
    let case = |why, map, window, scales: &[Scale]| {
        Planned::new(why, RegionPool { map, window, scales: scales.to_vec(), values: Values::Spread })
    };
    let three = &SEVEN[..3];
    let mut all = vec![
        case("one patch of one channel", [1, 1, 1], 4, three),
        case("one column of regions, narrower than a window", [24, 2, 64], 4, &SEVEN),
        case("one row of regions, lower than a window", [2, 24, 5], 4, &SEVEN),
        case("whole regions only, the paper's seven scales", [16, 16, 64], 4, &SEVEN),
        case("kernels larger than the window are the window", [7, 11, 4], 3, &[Scale::new(8, 5), Scale::new(2, 9)]),
        case("more kernels than one launch takes", [11, 9, 12], 8, &twenty()),
        case("more channels than any published decoder", [5, 6, 8192], 4, three),
        case("SigLIP's odd tile", [27, 27, 64], 4, three),
        case("a tile of SmolVLM 256M, whole regions", [8, 8, 576], 4, three),
        case("a tile of SmolVLM 2.2B, one patch more", [9, 9, 64], 4, three),
        case("a window that no kernel takes", [19, 18, 4], MAX_WINDOW + 1, three),
    ];
    for (channels, why) in [
        (1, "one channel"),
        (3, "a prime number of channels, read one by one"),
        (4, "one pack of channels"),
        (63, "one channel less than a workgroup has lanes"),
        (64, "the fixtures' channels"),
        (65, "one channel more than a workgroup has lanes"),
        (1024, "CLIP ViT-L's channels"),
        (4096, "the channels of a decoder of 7 billion"),
    ] {
        all.push(case(why, [7, 11, channels], 4, three));
    }
    for (window, why) in [
        (1, "regions of one patch"),
        (2, "regions of four patches"),
        (3, "a window that no scale divides"),
        (4, "the paper's window, partial regions both ways"),
        (8, "two by two of the paper's regions"),
        (12, "a window with packs cut into chunks"),
        (16, "the largest window, the smallest chunk"),
    ] {
        let whole = Scale::new(window, window);
        all.push(case(why, [18, 13, 36], window, &[&SEVEN[..], &[whole]].concat()));
    }
    for (map, why) in [([1, 3, 1], "negative, one kernel partly outside"), ([6, 7, 8], "negative, partial regions")] {
        let op = RegionPool { map, window: 4, scales: SEVEN.to_vec(), values: Values::Negative };
        all.push(Planned::new(why, op));
    }
    let real = RegionPool { map: [48, 48, 4096], window: 4, scales: three.to_vec(), values: Values::Spread };
    all.push(Planned::large("the map of LLaVA-NeXT 7B's largest canvas", real));
    all
}

impl RegionPool {
    fn input(&self, half: bool) -> Vec<f32> {
        let mut numbers = Numbers::of(&self.to_string());
        let count = self.map.iter().product();
        let values = match self.values {
            Values::Spread => numbers.floats(count, 4.0),
            Values::Negative => {
                let least = if half { -6e4 } else { -3e38 };
                numbers.floats(count, 0.4).into_iter().map(|v| (v + 0.6) * least).collect()
            }
        };
        stored(values, half)
    }
}

impl Operation for RegionPool {
    const NAME: &'static str = "region_pool";

    fn tolerance(&self, _half: bool) -> String {
        "exact: a maximum is one of its numbers".into()
    }

    fn has_kernel(&self) -> bool {
        self.window <= MAX_WINDOW
    }

    async fn run(&self, half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let map = bed.floats(&self.input(half), self.map);
        let pooled = region_pool(map, self.window, &self.scales)?;
        Ok(Outputs::from([("rows", read_f32(pooled.rows).await?)]))
    }

    fn check(&self, half: bool, got: &Outputs) -> Vec<Comparison> {
        let ([height, width, c], map) = (self.map, wide(&self.input(half)));
        let layout = PoolLayout::new((height, width), self.window, &self.scales);
        let rows = output(got, "rows");
        if rows.len() != layout.rows * c {
            return vec![Bound::Exact.check("rows", &vec![0.0; layout.rows * c], rows)];
        }
        let (mut inside, mut outside) = ((Vec::new(), Vec::new()), Vec::new());
        for (index, &scale) in self.scales.iter().enumerate() {
            let (token_rows, token_cols) = layout.tokens(index);
            let twin = fovea_shaders::region_pool(&map, self.map, self.window, scale);
            for (region, ((there_rows, there_cols), values)) in twin.iter().enumerate() {
                for (row, col) in (0..token_rows).flat_map(|row| (0..token_cols).map(move |col| (row, col))) {
                    let token = &rows[layout.row(index, region, row, col) * c..][..c];
                    if row < *there_rows && col < *there_cols {
                        inside.0.extend_from_slice(&values[(row * there_cols + col) * c..][..c]);
                        inside.1.extend_from_slice(token);
                    } else {
                        outside.extend_from_slice(token);
                    }
                }
            }
        }
        // Outside the map: the type's least finite number, which wins no maximum.
        let least = if half { half::f16::MIN.to_f64() } else { f64::from(f32::MIN) };
        let nothing = vec![least; outside.len()];
        vec![Bound::Exact.check("tokens", &inside.0, &inside.1), Bound::Exact.check("outside", &nothing, &outside)]
    }
}
