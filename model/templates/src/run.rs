//! The state of one rendering. The other files add its methods.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use super::{
    budget::Budget,
    syntax::Name,
    value::{Namespace, Scope, Value},
};

/// The state of one rendering.
pub(super) struct Run {
    pub(super) budget: Budget,
    pub(super) root: Rc<Scope>,
    /// Values that may contain themselves; they are emptied at the end, to free them.
    pub(super) namespaces: RefCell<Vec<Rc<Namespace>>>,
    pub(super) captured: RefCell<Vec<Rc<Scope>>>,
}

impl Run {
    /// A rendering with these variables.
    pub(super) fn new(budget: Budget, variables: HashMap<Name, Value>) -> Self {
        let root = Rc::new(Scope { names: RefCell::new(variables), outer: None });
        Self { budget, root, namespaces: RefCell::default(), captured: RefCell::default() }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Empties the scopes one by one, so that dropping them does not recurse.
        for namespace in self.namespaces.get_mut().iter() {
            drop(namespace.attributes.take());
        }
        for scope in self.captured.get_mut().iter() {
            drop(scope.names.take());
        }
    }
}
