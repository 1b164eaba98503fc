//! Which visual tokens are kept (paper Sec. 3.3, Eq. 9).

use bytemuck::{Pod, Zeroable};

use crate::kernel::{Kernel, Variant};

/// How many visual tokens the text-guided sampler keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keep {
    /// The fewest tokens whose share of the importance is above this threshold (Eq. 9); all tokens where no share is.
    Gamma(f64),
    /// This share of the tokens, rounded up.
    Ratio(f64),
    /// This number of tokens, or all where there are fewer.
    Count(usize),
}

/// The indices of the kept tokens, in rising order. Tokens are selected by falling score; of equal scores, the lower
/// index first. At least one token is kept.
///
/// The cumulative share is summed in f64: in f32 the result would depend on the order of the sum.
pub fn top_k(scores: &[f32], keep: Keep) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let total: f64 = order.iter().map(|&i| f64::from(scores[i])).sum();
    let count = match keep {
        Keep::Gamma(gamma) => {
            let mut sum = 0.0;
            order
                .iter()
                .position(|&i| {
                    sum += f64::from(scores[i]);
                    sum / total > gamma
                })
                .map_or(scores.len(), |i| i + 1)
        }
        by_count => count(by_count, scores.len()).unwrap_or(scores.len()),
    };
    order.truncate(count.max(1));
    order.sort_unstable();
    order
}

/// How many of `all` tokens are kept; None where it depends on the scores.
fn count(keep: Keep, all: usize) -> Option<usize> {
    let count = match keep {
        Keep::Gamma(gamma) if gamma < 1.0 => return None,
        // No share is above 1.
        Keep::Gamma(_) => all,
        // A little less, because 0.07 of 100 is 7.000000000000001 in f64, and must keep 7.
        Keep::Ratio(ratio) => (ratio * all as f64 - 1e-9).ceil() as usize,
        Keep::Count(count) => count,
    };
    Some(count.clamp(1, all.max(1)))
}

/// Largest number of scores per launch.
pub const MAX_SCORES: usize = 65536;

/// `Params` of `top_k.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct TopKParams {
    /// N.
    pub count: u32,
    /// 1: keep `keep` tokens; 0: use `gamma`.
    pub by_count: u32,
    /// Number of tokens.
    pub keep: u32,
    /// Gamma, times 2^32.
    pub gamma: u32,
}

impl TopKParams {
    /// The parameters for `count` scores.
    pub fn new(count: usize, keep: Keep) -> Self {
        let gamma = match keep {
            Keep::Gamma(gamma) => (gamma * 4_294_967_296.0) as u32, // the cast of a float saturates
            _ => 0,
        };
        let by_count = self::count(keep, count);
        Self {
            count: count as u32,
            by_count: by_count.is_some().into(),
            keep: by_count.unwrap_or_default() as u32,
            gamma,
        }
    }
}

/// The kernel: a radix select.
pub const KERNEL: Kernel = Kernel {
    name: "top_k",
    body: include_str!("wgsl/top_k.wgsl"),
    lanes: 256,
    buffers: 3,
    parameters: size_of::<TopKParams>(),
    variants: Variant::ONLY_F32,
    constants: &[],
    shared: &[],
    weight: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_whose_share_exceeds_gamma() {
        // The shares in falling order are .5 (exactly .7 / 1.4), .857, 1.
        let scores = [0.5, 0.7, 0.2];
        assert_eq!(top_k(&scores, Keep::Gamma(0.85)), [0, 1]);
        assert_eq!(top_k(&scores, Keep::Gamma(0.86)), [0, 1, 2]);
        assert_eq!(top_k(&scores, Keep::Gamma(1.0)), [0, 1, 2]);
    }

    #[test]
    fn equal_scores_go_by_rising_index_and_one_always_stays() {
        let scores = [0.25; 4];
        assert_eq!(top_k(&scores, Keep::Count(2)), [0, 1]);
        assert_eq!(top_k(&scores, Keep::Count(0)), [0]);
        assert_eq!(top_k(&scores, Keep::Count(9)), [0, 1, 2, 3]);
        assert_eq!(top_k(&scores, Keep::Ratio(0.26)), [0, 1]);
        assert_eq!(top_k(&[0.01; 100], Keep::Ratio(0.07)).len(), 7);
        assert_eq!(top_k(&[1.0], Keep::Gamma(0.1)), [0]);
    }
}
