//! A record that is longer than an entry may be: several entries, and a main one that names them.
//!
//! The parts are written first, under names that were never used before; then the main entry, in
//! one step, which makes them the record; then the old parts go. Wherever that is interrupted,
//! the main entry is the old one or the new one, and all that it names is there.

use keyring_core::{Entry, Error as Refusal};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::store::keychain::{Entries, Trouble, delete, read};

/// What the main entry holds in place of the record.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Parts {
    /// Comes first, and tells it from a record: see [`MARK`].
    parts: usize,
    pub(super) id: String,
    /// Of the record, in bytes.
    length: usize,
}

impl Parts {
    /// Those that a main entry names, unless it is the record itself.
    fn named_in(main: &[u8]) -> Result<Option<Self>, Trouble> {
        if !main.starts_with(MARK) {
            return Ok(None);
        }
        serde_json::from_slice(main).map(Some).map_err(|_| Trouble::Damaged(UNREADABLE))
    }
}

pub(super) fn load(
    main: &Entry,
    entries: &Entries<'_>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Trouble> {
    let mut seen = None;
    loop {
        let Some(bytes) = read(main)? else {
            return Ok(None);
        };
        let Some(parts) = Parts::named_in(&bytes)? else {
            return Ok(Some(bytes));
        };
        let record = gather(&parts, entries)?;
        if record.len() == parts.length {
            return Ok(Some(record));
        }
        // Somebody may have saved meanwhile, and removed these.
        if seen.as_ref() == Some(&parts) {
            return Err(Trouble::Damaged(INCOMPLETE));
        }
        seen = Some(parts);
    }
}

/// As [`load`], with what there is of a record that isn't whole.
pub(super) fn load_what_is_there(
    main: &Entry,
    entries: &Entries<'_>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Trouble> {
    let main = match main.get_secret() {
        // Several of one name: the first is as good as any to look at.
        Err(Refusal::Ambiguous(several)) => several.first().map(read).transpose()?.flatten(),
        Err(Refusal::BadDataFormat(raw, _) | Refusal::BadEncoding(raw)) => {
            Some(Zeroizing::new(raw))
        }
        Err(Refusal::BadStoreFormat(_)) => None,
        _ => read(main)?,
    };
    let Some(bytes) = main else {
        return Ok(None);
    };
    match Parts::named_in(&bytes).map(|parts| parts.map(|parts| gather(&parts, entries))) {
        Ok(Some(Ok(record))) => Ok(Some(record)),
        Ok(Some(Err(trouble))) if !trouble.is_damage() => Err(trouble),
        _ => Ok(Some(bytes)),
    }
}

pub(super) fn save(main: &Entry, entries: &Entries<'_>, record: &[u8]) -> Result<(), Trouble> {
    let old = named_by(main)?;
    if record.starts_with(MARK) {
        // It would be taken for the names of its parts.
        save_in_parts(main, entries, record, SMALLEST_LIMIT)?;
    } else {
        match set(main, record) {
            Err(Trouble::Refused(Refusal::TooLong(_, limit))) => {
                save_in_parts(main, entries, record, limit as usize)?;
            }
            result => result?,
        }
    }
    if let Some(old) = old {
        // What remains of them is found at the next logout.
        let _ = remove_parts(&old, entries);
    }
    Ok(())
}

pub(super) fn remove(main: &Entry, entries: &Entries<'_>) -> Result<(), Trouble> {
    let parts = named_by(main)?;
    // First: without it, the parts are no record.
    delete(main)?;
    parts.map_or(Ok(()), |parts| remove_parts(&parts, entries))
}

fn save_in_parts(
    main: &Entry,
    entries: &Entries<'_>,
    record: &[u8],
    limit: usize,
) -> Result<(), Trouble> {
    let id = getrandom::u64().map_err(|e| Trouble::Refused(Refusal::PlatformFailure(e.into())))?;
    let chunks = record.chunks(limit.max(SMALLEST_LIMIT));
    let parts = Parts { parts: chunks.len(), id: format!("{id:016x}"), length: record.len() };
    let written = (chunks.enumerate())
        .try_for_each(|(n, chunk)| set(&entries.part(&parts, n)?, chunk))
        .and_then(|()| {
            let names = serde_json::to_vec(&parts).map_err(|_| Trouble::Damaged(UNREADABLE))?;
            set(main, &names)
        });
    // The last step may have been done all the same: only who knows that it wasn't tidies up.
    if written.is_err()
        && let Ok(named) = named_by(main)
        && named.is_none_or(|named| named.id != parts.id)
    {
        // The first error is the one to tell.
        let _ = remove_parts(&parts, entries);
    }
    written
}

fn set(entry: &Entry, bytes: &[u8]) -> Result<(), Trouble> {
    match entry.set_secret(bytes) {
        Err(Refusal::Ambiguous(_)) => {
            // Nobody can tell which of them counts; what is written now does.
            delete(entry)?;
            entry.set_secret(bytes).map_err(Trouble::Refused)
        }
        result => result.map_err(Trouble::Refused),
    }
}

/// The parts there are of a record, one after the other.
fn gather(parts: &Parts, entries: &Entries<'_>) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let mut record = Zeroizing::new(Vec::with_capacity(parts.length.min(LONGEST)));
    for n in 0..parts.parts.min(LONGEST / SMALLEST_LIMIT) {
        let Some(part) = read(&entries.part(parts, n)?)? else {
            break;
        };
        record.extend_from_slice(&part);
    }
    Ok(record)
}

fn remove_parts(parts: &Parts, entries: &Entries<'_>) -> Result<(), Trouble> {
    (0..parts.parts.min(LONGEST / SMALLEST_LIMIT))
        .try_for_each(|n| delete(&entries.part(parts, n)?))
}

/// The parts that the main entry names, if it names any. One that is damaged names none.
fn named_by(main: &Entry) -> Result<Option<Parts>, Trouble> {
    match read(main) {
        Ok(Some(bytes)) => Ok(Parts::named_in(&bytes).unwrap_or(None)),
        Ok(None) => Ok(None),
        Err(trouble) if trouble.is_damage() => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

/// How a main entry begins that names parts. A record begins with its version.
const MARK: &[u8] = br#"{"parts":"#;

/// No keychain's entries are shorter: below that, names would not fit either.
const SMALLEST_LIMIT: usize = 256;

/// No record is longer: a damaged entry must not make the program allocate what it likes.
const LONGEST: usize = 4 << 20;

const UNREADABLE: &str = "its entry is damaged: log in again, which keeps the damaged one aside";
const INCOMPLETE: &str =
    "parts of its entry are missing: log in again, which keeps the rest of it aside";
