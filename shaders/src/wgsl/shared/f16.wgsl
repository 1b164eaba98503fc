// Storage in f16.
enable f16;
alias Elem = f16;
// The smallest finite number: it never wins a maximum. WGSL may assume that there are no infinities.
const LOWEST: Elem = -65504.0h;
