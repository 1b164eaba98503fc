//! What one rendering may take. A template is a stranger's program: it must end, and may not exhaust memory or stack.

use std::cell::Cell;

use super::fail::{Res, fail};

/// Statements and operations.
const STEPS: u64 = 1_000_000;
/// Bytes read and written by all operations together, what is freed again included.
const WORK: u64 = 128 << 20;
/// Calls within calls: of macros, of recursive loops, and of what they nest.
const DEEPEST: u32 = 200;

/// What is left.
pub(super) struct Budget {
    steps: Cell<u64>,
    work: Cell<u64>,
    depth: Cell<u32>,
}

/// One level of recursion, until it is dropped.
pub(super) struct Level<'a>(&'a Budget);

impl Budget {
    pub(super) fn new() -> Self {
        Self { steps: Cell::new(STEPS), work: Cell::new(WORK), depth: Cell::new(0) }
    }

    /// Pays for one operation.
    pub(super) fn step(&self) -> Res<()> {
        match self.steps.get().checked_sub(1) {
            Some(left) => {
                self.steps.set(left);
                Ok(())
            }
            None => fail(format!("more than {STEPS} operations")),
        }
    }

    /// Pays for bytes, before they are read or allocated.
    pub(super) fn work(&self, bytes: usize) -> Res<()> {
        match self.work.get().checked_sub(bytes as u64) {
            Some(left) => {
                self.work.set(left);
                Ok(())
            }
            None => fail(format!("more than {WORK} bytes of work")),
        }
    }

    /// Goes a level deeper.
    pub(super) fn deeper(&self) -> Res<Level<'_>> {
        if self.depth.get() >= DEEPEST {
            return fail(format!("recursion of more than {DEEPEST} levels"));
        }
        self.depth.set(self.depth.get() + 1);
        Ok(Level(self))
    }
}

impl Drop for Level<'_> {
    fn drop(&mut self) {
        self.0.depth.set(self.0.depth.get() - 1);
    }
}
