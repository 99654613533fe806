//! The mutex of what is tried out in every order: that of std, or shuttle's, which decides at each
//! lock who goes on.

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard};
