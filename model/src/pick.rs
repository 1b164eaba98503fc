//! Chooses tokens. Input: logits. Output: the next token, greedy or sampled with temperature, top-k and top-p from a seed.
//! Source: Hugging Face's `generation/logits_process.py`.

use std::{borrow::Cow, collections::HashSet};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::error::Error;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pick {
    /// 0: the most likely token (greedy). Above 0: logits are divided by it, and a token is sampled.
    pub temperature: f64,
    /// Sample from this many of the most likely tokens; 0: from all.
    pub top_k: usize,
    /// Sample from the fewest most likely tokens whose probabilities reach this sum; 1: from all.
    pub top_p: f64,
    /// Seed: the same seed gives the same tokens.
    pub seed: u64,
    /// Divides a positive logit and multiplies a negative one of every token that already occurs in prompt or answer, before
    /// everything else (Hugging Face's `RepetitionPenaltyLogitsProcessor`). 1 has no effect. None: the value of the
    /// checkpoint.
    pub repetition_penalty: Option<f64>,
}

impl Default for Pick {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0, repetition_penalty: None }
    }
}

impl Pick {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |option, expected: &str, got: f64| Error::Option {
            option,
            expected: expected.into(),
            got: got.to_string(),
        };
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(wrong("temperature", "a number of at least 0", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(wrong("top-p", "a number above 0 and at most 1", self.top_p));
        }
        if let Some(penalty) = self.repetition_penalty.filter(|p| !(p.is_finite() && *p > 0.0)) {
            return Err(wrong("repetition-penalty", "a number above 0", penalty));
        }
        Ok(())
    }
}

/// Chooses the tokens of one answer, one by one.
pub(crate) struct Picker<'a> {
    pick: Pick,
    rng: ChaCha8Rng,
    allowed: &'a [bool],
    penalty: f32,
    /// Ids that occur in prompt or answer.
    seen: HashSet<u32>,
}

impl<'a> Picker<'a> {
    /// Tokens that are not `allowed` are never chosen. `penalty` is the value of the checkpoint, `prompt` are its ids.
    pub fn new(pick: Pick, penalty: f32, allowed: &'a [bool], prompt: &[u32]) -> Self {
        let penalty = pick.repetition_penalty.map_or(penalty, |p| p as f32);
        let seen = prompt.iter().copied().collect();
        Self { pick, rng: ChaCha8Rng::seed_from_u64(pick.seed), allowed, penalty, seen }
    }

    /// Whether each token is the most likely allowed one, with logits as they are.
    pub fn is_plain(&self) -> bool {
        self.pick.temperature == 0.0 && self.penalty == 1.0
    }

    /// Records that `id` is the next token of the answer.
    pub fn push(&mut self, id: u32) {
        self.seen.insert(id);
    }

    /// The next token. Of equal logits the lower id is chosen.
    pub fn next(&mut self, logits: &[f32]) -> u32 {
        let mut penalized = Cow::Borrowed(logits);
        if self.penalty != 1.0 {
            let logits = penalized.to_mut();
            for &id in &self.seen {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit = if *logit < 0.0 { *logit * self.penalty } else { *logit / self.penalty };
                }
            }
        }
        let logits = &*penalized;
        let mut order: Vec<u32> =
            (0..logits.len().min(self.allowed.len()) as u32).filter(|&i| self.allowed[i as usize]).collect();
        let logit = |i: u32| f64::from(logits[i as usize]);
        if self.pick.temperature == 0.0 {
            return order.into_iter().reduce(|best, i| if logit(i) > logit(best) { i } else { best }).unwrap_or(0);
        }
        order.sort_by(|&a, &b| logit(b).total_cmp(&logit(a)));
        if self.pick.top_k > 0 {
            order.truncate(self.pick.top_k);
        }
        let top = order.first().map_or(0.0, |&i| logit(i));
        let weights: Vec<f64> = order.iter().map(|&i| ((logit(i) - top) / self.pick.temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let kept = weights.iter().position(|w| {
            sum += w;
            sum >= self.pick.top_p * total
        });
        let weights = &weights[..kept.map_or(weights.len(), |i| i + 1)];
        // 53 random bits: a uniform number in [0, 1).
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = uniform * weights.iter().sum::<f64>();
        for (i, w) in weights.iter().enumerate() {
            left -= w;
            if left < 0.0 {
                return order[i];
            }
        }
        order[weights.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_lower_of_equal_ids_and_only_allowed_ones() {
        let mut picker = Picker::new(Pick::default(), 1.0, &[true, true, true, false], &[]);
        assert_eq!(picker.next(&[1.0, 3.0, 3.0, 9.0]), 1);
    }

    #[test]
    fn each_repeated_token_is_penalized_once() {
        // By hand: 6 / 2 = 3, -1 * 2 = -2, 4 is unchanged; 0 is in the prompt twice, 1 once.
        let mut picker = Picker::new(Pick::default(), 2.0, &[true; 3], &[0, 0, 1]);
        assert_eq!(picker.next(&[6.0, -1.0, 4.0]), 2);
        assert_eq!(picker.next(&[8.5, -1.0, 4.0]), 0);
        // After token 2 its logit is 4 / 2 = 2, below the 3 of token 0.
        picker.push(2);
        assert_eq!(picker.next(&[6.0, -1.0, 4.0]), 0);
        // All negative: -3 * 2 for 0, -5 * 2 for 1, -7 * 2 for 2.
        assert_eq!(picker.next(&[-3.0, -5.0, -7.0]), 0);
        let off = Pick { repetition_penalty: Some(1.0), ..Pick::default() };
        assert_eq!(Picker::new(off, 2.0, &[true; 3], &[0]).next(&[6.0, -1.0, 4.0]), 0);
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        // Weights 1 : 2 : 5 at temperature 1.
        let logits = [1f32.ln(), 2f32.ln(), 5f32.ln()];
        let draw = |pick: Pick| {
            let mut picker = Picker::new(pick, 1.0, &[true; 3], &[]);
            (0..8000).map(|_| picker.next(&logits)).collect::<Vec<u32>>()
        };
        let plain = draw(Pick { temperature: 1.0, ..Pick::default() });
        assert_eq!(plain, draw(Pick { temperature: 1.0, ..Pick::default() }));
        let share = |drawn: &[u32], id| drawn.iter().filter(|&&i| i == id).count() as f64 / drawn.len() as f64;
        assert!((share(&plain, 2) - 0.625).abs() < 0.02, "{}", share(&plain, 2));
        assert!((share(&plain, 0) - 0.125).abs() < 0.02, "{}", share(&plain, 0));
        // The two most likely hold 7/8: top-p .8 keeps both, .6 only the first.
        assert_eq!(share(&draw(Pick { temperature: 1.0, top_p: 0.8, ..Pick::default() }), 0), 0.0);
        assert_eq!(share(&draw(Pick { temperature: 1.0, top_p: 0.6, ..Pick::default() }), 2), 1.0);
        assert_eq!(share(&draw(Pick { temperature: 1.0, top_k: 1, ..Pick::default() }), 2), 1.0);
    }
}
