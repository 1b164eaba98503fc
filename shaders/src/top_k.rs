//! Which visual tokens stay (paper Sec. 3.3, Eq. 9).

/// How many visual tokens the text-guided sampler keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keep {
    /// The fewest whose share of the importance exceeds this threshold (Eq. 9); all, where none does.
    Gamma(f64),
    /// This share of them, rounded up.
    Ratio(f64),
    /// This many, or all where there are fewer.
    Count(usize),
}

/// Indices of the kept tokens, in rising order. Order by falling score; equal scores: the lower index first.
///
/// At least one token stays. The cumulative share is summed in f64: in f32 the cut moves with the order of the sum.
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
        // A hair less, so that 0.07 of 100, which is 7.000000000000001 in f64, keeps 7.
        Keep::Ratio(ratio) => (ratio * scores.len() as f64 - 1e-9).ceil() as usize,
        Keep::Count(count) => count,
    };
    order.truncate(count.max(1));
    order.sort_unstable();
    order
}

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
