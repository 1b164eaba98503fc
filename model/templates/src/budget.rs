//! Limits of one rendering. A template is untrusted: it must terminate, and must not exhaust memory or stack.

use std::cell::Cell;

use super::fail::{Res, fail};

/// Maximum number of statements and operations.
const STEPS: u64 = 1_000_000;
/// Maximum number of bytes that all operations read and write together, including memory that is freed again.
const WORK: u64 = 128 << 20;
/// Maximum depth of nested calls of macros and recursive loops.
const DEEPEST: u32 = 200;

/// The remaining budget.
pub(super) struct Budget {
    steps: Cell<u64>,
    work: Cell<u64>,
    depth: Cell<u32>,
}

/// One level of recursion; it ends when this is dropped.
pub(super) struct Level<'a>(&'a Budget);

impl Budget {
    pub(super) fn new() -> Self {
        Self { steps: Cell::new(STEPS), work: Cell::new(WORK), depth: Cell::new(0) }
    }

    /// Counts one operation.
    pub(super) fn step(&self) -> Res<()> {
        match self.steps.get().checked_sub(1) {
            Some(left) => {
                self.steps.set(left);
                Ok(())
            }
            None => fail(format!("expected at most {STEPS} operations, got more")),
        }
    }

    /// Counts bytes. Call it before they are read or allocated.
    pub(super) fn work(&self, bytes: usize) -> Res<()> {
        match self.work.get().checked_sub(bytes as u64) {
            Some(left) => {
                self.work.set(left);
                Ok(())
            }
            None => fail(format!("expected at most {WORK} bytes of work, got more")),
        }
    }

    /// Enters a level of recursion.
    pub(super) fn deeper(&self) -> Res<Level<'_>> {
        if self.depth.get() >= DEEPEST {
            return fail(format!("expected at most {DEEPEST} levels of recursion, got more"));
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
