//! The routes.

pub(crate) mod chat;
pub(crate) mod health;
pub(crate) mod models;
pub(crate) mod openapi;
pub(crate) mod overlay;
pub(crate) mod page;
mod intake;
mod stream;
