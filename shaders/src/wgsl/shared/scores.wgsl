// Sixteen products at once: four queries with four keys, each read once for four products.

// s[i][j] = query[row[i] ..] . key[column[j] ..], both `params.packs` packs long.
fn scores(row: vec4<u32>, column: vec4<u32>) -> mat4x4<f32> {
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    for (var p = 0u; p < params.packs; p++) {
        let k = mat4x4<f32>(Wide(key[column.x + p]), Wide(key[column.y + p]), Wide(key[column.z + p]), Wide(key[column.w + p]));
        s0 += Wide(query[row.x + p]) * k;
        s1 += Wide(query[row.y + p]) * k;
        s2 += Wide(query[row.z + p]) * k;
        s3 += Wide(query[row.w + p]) * k;
    }
    return mat4x4<f32>(s0, s1, s2, s3);
}
