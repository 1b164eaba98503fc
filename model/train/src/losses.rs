//! The losses: cross entropy of the answers, the balance loss (Eq. 5), and three that the paper does not have: dense labels, the
//! scale hint, and the attention hint.

use burn::tensor::{Device, Int, Tensor, TensorData, activation};

use fovea_model::Error;

use crate::{
    batch::Batch,
    labels::{COLORS, DIGITS, HEAD, KINDS, Label, MIDDLE, PLACES},
    network::DenseHeads,
    sequence::Aims,
};

/// Weight of the background in the cross entropy of kinds, because most patches are background.
const BACKGROUND: f64 = 0.3;

/// `mean(-log softmax(logits)[target])`.
///
/// # Shapes
/// `logits` (n, classes); n `targets` -> (1).
pub(crate) fn cross_entropy(logits: Tensor<2>, targets: &[usize], device: &Device) -> Tensor<1> {
    let n = targets.len();
    let targets: Vec<i32> = targets.iter().map(|&t| t as i32).collect();
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [n, 1]), device);
    activation::log_softmax(logits, 1).gather(1, targets).mean().neg()
}

/// Eq. 3 to 5 and Eq. 10: `sum_i w_i f_i P_i`, where f_i is the share of regions that chose scale i, without gradient, P_i is the mean
/// probability of scale i, and w_i is its weight.
///
/// # Shapes
/// `selector` (regions, scales), the logits; `choice` (regions); `weights` (scales) -> (1).
pub(crate) fn balance(selector: &Tensor<2>, choice: &[usize], weights: &[f32], device: &Device) -> Tensor<1> {
    let scales = selector.dims()[1];
    let mut share = vec![0.0f32; scales];
    choice.iter().for_each(|&c| share[c] += weights[c] / choice.len() as f32);
    let share = Tensor::<2>::from_data(TensorData::new(share, [1, scales]), device);
    (activation::softmax(selector.clone(), 1).mean_dim(0) * share).sum()
}

/// Weight of importance on other objects in the attention hint. It is large enough that guessing one of three objects does not
/// reduce the loss.
const OTHERS: f64 = 4.0;

/// The attention hint, a mean over the questions with an aim: `KL(U || I) + 4 sum_others I`. I is the importance of a question
/// (Eq. 8) divided by its sum; U is uniform over the tokens of the question's objects. Our choice, not in the paper.
///
/// # Shapes
/// `importance` (scenes, questions, visual tokens) -> (1). None if no question has an aim.
pub(crate) fn look(importance: &Tensor<3>, aims: Aims, device: &Device) -> Option<Tensor<1>> {
    if aims.count == 0 {
        return None;
    }
    let shape = importance.dims();
    let upload = |values: Vec<f32>| Tensor::<3>::from_data(TensorData::new(values, shape), device);
    // A scene with fewer questions than others has rows of zeros, which belong to no question.
    let share = importance.clone() / (importance.clone().sum_dim(2) + 1e-9);
    let missed = (share.clone() + 1e-8).log() * upload(aims.wanted);
    let strayed = share * upload(aims.others);
    Some((strayed.sum() * OTHERS - missed.sum() - aims.entropy) / aims.count as f64)
}

/// A loss, and the correct and all labels of kinds, colours, whole numbers and words.
pub(crate) type Dense = (Tensor<1>, [(usize, usize); 4]);

/// The sum of the dense labels' cross entropies: kind, colour, each digit, word, middle. Also the correct and all labels of kinds,
/// colours, whole numbers and words. None if the batch has no labels.
///
/// # Shapes
/// `features` (tiles * P*P, d_vision) -> (1).
pub(crate) fn dense(
    features: &Tensor<2>,
    batch: &Batch,
    heads: &DenseHeads,
    device: &Device,
) -> Result<Option<Dense>, Error> {
    let labels = &batch.labels;
    if labels.is_empty() {
        return Ok(None);
    }
    let ints = |rows: Vec<i32>| {
        let n = rows.len();
        Tensor::<1, Int>::from_data(TensorData::new(rows, [n]), device)
    };
    let rows = ints(labels.iter().map(|(row, _)| *row as i32).collect());
    let logits = heads.linear.forward(heads.norm.forward(features.clone().select(0, rows))?)?;
    // The rows of `labels` that have a class, and their classes.
    let with = |class: &dyn Fn(&Label) -> Option<usize>| -> (Vec<i32>, Vec<usize>) {
        labels.iter().enumerate().filter_map(|(i, (_, label))| class(label).map(|c| (i as i32, c))).unzip()
    };
    let mut losses: Vec<Tensor<1>> = Vec::new();
    let mut right = [(0, 0); 4];
    let mut head = |from: usize, classes: usize, rows: &[i32], targets: &[usize]| -> Vec<bool> {
        if rows.is_empty() {
            return Vec::new();
        }
        let logits = logits.clone().narrow(1, from, classes).select(0, ints(rows.to_vec()));
        let guessed = logits.clone().inner().argmax(1).into_data();
        let right = guessed.iter::<i64>().zip(targets).map(|(g, t)| g as usize == *t).collect();
        losses.push(cross_entropy(logits, targets, device));
        right
    };
    let count = |right: &[bool]| (right.iter().filter(|r| **r).count(), right.len());
    // Objects and background are separate, so that each has its own weight.
    let (rows, targets) = with(&|l| (l.kind > 0).then_some(l.kind));
    right[0] = count(&head(0, KINDS, &rows, &targets));
    let (rows, targets) = with(&|l| l.color);
    right[1] = count(&head(KINDS, COLORS, &rows, &targets));
    let mut whole: Vec<bool> = Vec::new();
    for place in 0..PLACES {
        let (rows, targets) = with(&|l| l.places.map(|p| p[place]));
        let right = head(KINDS + COLORS + place * DIGITS, DIGITS, &rows, &targets);
        whole.resize(right.len(), true);
        whole.iter_mut().zip(right).for_each(|(whole, right)| *whole &= right);
    }
    right[2] = count(&whole);
    let (rows, targets) = with(&|l| l.word);
    let from = KINDS + COLORS + PLACES * DIGITS;
    right[3] = count(&head(from, HEAD - MIDDLE - from, &rows, &targets));
    let (rows, targets) = with(&|l| l.middle);
    head(HEAD - MIDDLE, MIDDLE, &rows, &targets);
    let Some(mut total) = losses.into_iter().reduce(|a, b| a + b) else { return Ok(None) };
    let (rows, targets) = with(&|l| (l.kind == 0).then_some(0));
    if !rows.is_empty() {
        let logits = logits.narrow(1, 0, KINDS).select(0, ints(rows));
        total = total + cross_entropy(logits, &targets, device) * BACKGROUND;
    }
    Ok(Some((total, right)))
}
