// Packs of one element: for rows of any length.
alias Pack = Elem;
alias Wide = f32;

fn total(x: Wide) -> f32 {
    return x;
}
