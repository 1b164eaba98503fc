// Storage in f32.
alias Elem = f32;
// The smallest finite number: it never wins a maximum. WGSL may assume that there are no infinities.
const LOWEST: Elem = -3.4028234663852886e38f;
