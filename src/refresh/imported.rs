//! Which tokens of other programs were taken over: once each, since a refresh token that has been
//! spent since must not be sent again.

use serde::{Deserialize, Serialize};

use crate::store::{Notes, StoreError};

/// The SHA-256 of each, the newest last.
#[derive(Default, Deserialize, Serialize)]
struct Imported {
    version: u32,
    tokens: Vec<String>,
}

pub(crate) fn is_noted(notes: &Notes, token: &str) -> Result<bool, StoreError> {
    Ok(read(notes)?.tokens.iter().any(|known| known == token))
}

/// Durable on return.
pub(crate) fn note(notes: &Notes, token: &str) -> Result<(), StoreError> {
    let mut imported = read(notes)?;
    imported.tokens.push(token.to_owned());
    let surplus = imported.tokens.len().saturating_sub(KEPT);
    imported.tokens.drain(..surplus);
    write(notes, imported)
}

/// It was not taken over after all.
pub(crate) fn forget(notes: &Notes, token: &str) -> Result<(), StoreError> {
    let mut imported = read(notes)?;
    imported.tokens.retain(|known| known != token);
    write(notes, imported)
}

/// # Errors
/// It can't be read. One that is damaged must not count as empty.
fn read(notes: &Notes) -> Result<Imported, StoreError> {
    let Some(bytes) = notes.read(KIND)? else {
        return Ok(Imported::default());
    };
    serde_json::from_slice(&bytes).map_err(|_| {
        StoreError::corrupt("the note of imported tokens beside its lock is damaged: remove it")
    })
}

fn write(notes: &Notes, imported: Imported) -> Result<(), StoreError> {
    let imported = Imported { version: 1, ..imported };
    notes.write(KIND, &serde_json::to_vec(&imported).unwrap_or_default())
}

const KIND: &str = "imported";

/// A program that imports a new one every day for months.
const KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let notes = Notes::new(None);
        for n in 0..KEPT + 2 {
            note(&notes, &n.to_string()).unwrap();
        }
        assert!(!is_noted(&notes, "1").unwrap());
        assert!(is_noted(&notes, "2").unwrap());
        forget(&notes, "2").unwrap();
        assert!(!is_noted(&notes, "2").unwrap());
        assert_eq!(read(&notes).unwrap().version, 1);
    }

    #[test]
    fn a_damaged_note_is_an_error() {
        let notes = Notes::new(None);
        notes.write(KIND, b"{").unwrap();
        assert!(is_noted(&notes, "1").unwrap_err().is_corrupt());
    }
}
