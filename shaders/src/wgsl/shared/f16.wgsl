// Storage in f16.
enable f16;
alias Elem = f16;
// The least number: wins no maximum. Finite, because WGSL may assume that infinities do not exist.
const LOWEST: Elem = -65504.0h;
