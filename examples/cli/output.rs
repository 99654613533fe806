//! What goes to stdout.

use std::fmt::Display;
use std::io::{self, Write};

use crate::trouble::Trouble;

/// Prints a line, without the panic of `println!` where nobody reads it.
///
/// # Errors
/// It could not be written.
pub fn print(line: impl Display) -> Result<(), Trouble> {
    writeln!(io::stdout(), "{line}")
        .map_err(|error| Trouble::other("could not write to stdout", error))
}
