// Storage in f32.
alias Elem = f32;
// The least number: wins no maximum. Finite, because WGSL may assume that infinities do not exist.
const LOWEST: Elem = -3.4028234663852886e38f;
