// Packs of four elements: for rows whose length is a multiple of four.
alias Pack = vec4<Elem>;
alias Wide = vec4<f32>;

fn total(x: Wide) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}
