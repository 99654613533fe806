//! The newest answer of the token endpoint, durable before anything else is done with it.
//!
//! It is sealed with a key that only the record holds: a keychain that takes no writes for now
//! loses nothing, and the file alone tells nothing. It counts until the record is as new.

use std::fmt;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::store::{Brief, Notes, Record, StoreError};

/// Made by a login, and kept for as long as that lasts.
#[derive(Clone)]
pub(crate) struct JournalKey(Arc<Zeroizing<[u8; 32]>>);

impl JournalKey {
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key)?;
        Ok(Self(Arc::new(key)))
    }

    pub(crate) fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(crate::lock::hex(self.0.as_slice()))
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(Arc::new(key)))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        let key: &[u8; 32] = &self.0;
        XChaCha20Poly1305::new(key.into())
    }
}

impl fmt::Debug for JournalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JournalKey([redacted])")
    }
}

/// What the seal is for, in clear: the first line of the file.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Header {
    version: u32,
    /// Whose answer it is, as a hash.
    login: String,
    generation: u64,
    /// The SHA-256 of the refresh token that was presented for it.
    presented: String,
}

/// Keeps `record`, the answer to the refresh token of `presented`, in the room that was reserved.
/// Durable on return.
pub(crate) fn keep(
    notes: &Notes,
    key: &JournalKey,
    record: &Record,
    presented: &Brief,
) -> Result<(), StoreError> {
    let header = Header {
        version: VERSION,
        login: presented.login.hash(),
        generation: presented.generation + 1,
        presented: presented.refresh.clone().unwrap_or_default(),
    };
    let sealed = seal(key, &header, record.as_bytes())
        .ok_or_else(|| StoreError::unavailable("the journal could not be sealed"))?;
    notes.write_in_room(KIND, &sealed)
}

/// The record in the journal, if it is newer than `than`, and of the same login. One that its key
/// doesn't open is none.
pub(crate) fn newer(
    notes: &Notes,
    key: &JournalKey,
    than: &Brief,
) -> Result<Option<Record>, StoreError> {
    let Some(bytes) = notes.read(KIND)? else {
        return Ok(None);
    };
    let Some((header, record)) = open(key, &bytes) else {
        return Ok(None);
    };
    let belongs = header.login == than.login.hash() && header.generation > than.generation;
    Ok(belongs.then_some(record))
}

pub(crate) fn remove(notes: &Notes) -> Result<(), StoreError> {
    notes.remove(KIND)
}

fn seal(key: &JournalKey, header: &Header, record: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = serde_json::to_vec(header).ok()?;
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).ok()?;
    let payload = Payload { msg: record, aad: &bytes };
    let sealed = key.cipher().encrypt(&XNonce::from(nonce), payload).ok()?;
    bytes.push(b'\n');
    bytes.extend(nonce);
    bytes.extend(sealed);
    Some(bytes)
}

fn open(key: &JournalKey, bytes: &[u8]) -> Option<(Header, Record)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
    let header: Header = serde_json::from_slice(line).ok()?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
    let payload = Payload { msg: sealed, aad: line };
    let record = Zeroizing::new(key.cipher().decrypt(&XNonce::from(*nonce), payload).ok()?);
    (header.version == VERSION).then(|| (header, Record::from_bytes(&record)))
}

const KIND: &str = "journal";
const VERSION: u32 = 1;
const NONCE: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::LoginId;

    fn header() -> Header {
        let (login, presented) = ("l".to_owned(), "p".to_owned());
        Header { version: VERSION, login, generation: 7, presented }
    }

    #[test]
    fn what_was_sealed_is_opened_with_its_key_alone() {
        let key = JournalKey::random().unwrap();
        let sealed = seal(&key, &header(), b"canary").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        assert_ne!(sealed, seal(&key, &header(), b"canary").unwrap(), "another nonce");
        let copy = JournalKey::from_hex(&key.to_hex()).unwrap();
        let (opened, record) = open(&copy, &sealed).unwrap();
        assert_eq!((opened, record.as_bytes()), (header(), &b"canary"[..]));
        assert!(open(&JournalKey::random().unwrap(), &sealed).is_none());
        assert_eq!(format!("{key:?}"), "JournalKey([redacted])");
    }

    #[test]
    fn it_is_newer_than_an_earlier_generation_of_the_same_login_alone() {
        let brief = |login: &str, generation| {
            let login = LoginId(login.to_owned());
            Brief { login, generation, refresh: None, key: None }
        };
        let (notes, key) = (Notes::new(None), JournalKey::random().unwrap());
        keep(&notes, &key, &Record::from_bytes(b"record"), &brief("l", 6)).unwrap();
        let kept = |than| newer(&notes, &key, &than).unwrap();
        assert_eq!(kept(brief("l", 6)).unwrap().as_bytes(), b"record");
        for than in [brief("l", 7), brief("l", 8), brief("other", 6)] {
            assert!(kept(than.clone()).is_none(), "{than:?}");
        }
    }

    #[test]
    fn a_journal_with_any_byte_changed_or_missing_is_none() {
        let key = JournalKey::random().unwrap();
        let sealed = seal(&key, &header(), b"record").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&key, &changed).is_none(), "byte {at}");
            assert!(open(&key, &sealed[..at]).is_none(), "{at} bytes");
        }
    }

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"ä".repeat(32)] {
            assert!(JournalKey::from_hex(text).is_none(), "{text}");
        }
        assert!(JournalKey::from_hex(&"0f".repeat(32)).is_some());
    }
}
