//! The record: what a store keeps of a session, opaque to the store.

use std::fmt;
use std::mem;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use serde::{Deserialize, Serialize, Serializer};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use zeroize::{Zeroize, Zeroizing};

use crate::endpoint::ServerMetadata;
use crate::lock::digest;
use crate::refresh::{JournalKey, Known};
use crate::token::{
    Birth, Expiry, Identity, LoginId, Moment, RefreshToken, Secret, TokenResponse, Tokens,
};

/// One session's tokens, as a [`TokenStore`](crate::TokenStore) keeps them.
///
/// A store that holds a token response (RFC 6749 §5.1) in place of a record, because another
/// program put it there, is understood too: whose tokens these are is logged in.
///
/// The bytes are secret and opaque: a store gives back the ones it got. They are wiped from
/// memory on drop, and `Debug` doesn't show them.
#[derive(Clone)]
pub struct Record(Zeroizing<Vec<u8>>);

impl Record {
    /// A record from the bytes of an earlier [`Self::as_bytes`]. Whether they are one is found
    /// out by the session.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The bytes to keep.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn of(tokens: &Tokens, pin: &Pin) -> Self {
        Self::with_key(tokens, tokens.key.as_ref(), pin)
    }

    /// With a key for the journal of its own.
    pub(crate) fn with_key(tokens: &Tokens, key: Option<&JournalKey>, pin: &Pin) -> Self {
        let fields = Fields {
            version: VERSION,
            login: tokens.login.0.clone(),
            generation: tokens.generation,
            replayed: tokens.birth == Birth::ReplayedRefresh,
            access_token: tokens.access.expose(),
            refresh_token: tokens.refresh.as_ref().map(RefreshToken::secret),
            logged_in_at: millis(tokens.logged_in_at),
            received_at: millis(tokens.received_at),
            expires_at: tokens.expiry.map(|expiry| millis(expiry.at.wall)),
            refresh_expires_at: tokens.refresh_expires_at.map(millis),
            scope: tokens.scope.as_deref(),
            subject: tokens.subject.as_deref(),
            of_another: tokens.of_another,
            server: tokens.server.as_deref(),
            issued_by: &pin.0,
            journal_key: key.map(JournalKey::to_hex),
            saved_by: &tokens.saved_by,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(ROOM));
        // Strings and numbers: there is nothing in it that JSON can't say, and a Vec takes all.
        let _ = serde_json::to_writer(&mut *bytes, &fields);
        Self(bytes)
    }

    /// What the record says, as tokens of the login counted as `epoch` here.
    pub(crate) fn read(&self, pin: &Pin, epoch: u64, now: Moment) -> Result<Tokens, Unreadable> {
        let Ok(version) = serde_json::from_slice::<Version>(&self.0) else {
            return self.import(epoch, now).ok_or(Unreadable::Corrupt);
        };
        if version.version > VERSION {
            return Err(Unreadable::Newer(version.version));
        }
        let mut fields: Owned = serde_json::from_slice(&self.0).map_err(|_| Unreadable::Corrupt)?;
        if fields.generation == u64::MAX {
            // There is no next one.
            return Err(Unreadable::Corrupt);
        }
        if fields.issued_by != pin.0 {
            return Err(Unreadable::OtherIssuer(fields.issued_by.clone()));
        }
        let received_at = from_millis(fields.received_at);
        let expiry =
            (fields.expires_at).map(|at| Expiry::restored(from_millis(at), received_at, now));
        let access = TokenResponse::new(mem::take(&mut fields.access_token));
        access.check().map_err(|_| Unreadable::Corrupt)?;
        let header: HeaderValue = access.header();
        let server = fields.server.take().map(Arc::new);
        Ok(Tokens {
            login: LoginId(mem::take(&mut fields.login)),
            epoch,
            generation: fields.generation,
            birth: match (fields.generation, fields.replayed) {
                (0, _) => Birth::Login,
                (_, true) => Birth::ReplayedRefresh,
                (_, false) => Birth::Refresh,
            },
            received: (now.wall.duration_since(received_at).ok())
                .and_then(|age| now.mono.checked_sub(age)),
            received_at,
            logged_in_at: from_millis(fields.logged_in_at),
            expiry,
            refresh_expires_at: fields.refresh_expires_at.map(from_millis),
            access: access.access_token,
            refresh: (fields.refresh_token.take())
                .map(|token| RefreshToken::new(Secret::new(token), server.clone())),
            server,
            scope: fields.scope.take(),
            subject: fields.subject.take().map(Arc::from),
            of_another: fields.of_another,
            header,
            key: fields.journal_key.as_deref().and_then(JournalKey::from_hex),
            saved_by: fields.saved_by.as_str().into(),
            rejected: OnceLock::new(),
            refused: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
        })
    }

    /// What tells the record from others. `None` for one that is none, or of a later version.
    pub(crate) fn brief(&self) -> Option<Brief> {
        let Ok(version) = serde_json::from_slice::<Version>(&self.0) else {
            let imported = self.import(0, Moment::now())?;
            return Some(Brief::of(&imported));
        };
        let fields: Owned =
            (version.version == VERSION).then(|| serde_json::from_slice(&self.0).ok()).flatten()?;
        Some(Brief {
            login: LoginId(fields.login.clone()),
            generation: fields.generation,
            refresh: fields.refresh_token.as_deref().map(fingerprint),
            key: fields.journal_key.as_deref().and_then(JournalKey::from_hex),
        })
    }

    /// Whether it is none, not even one of a later version.
    pub(crate) fn is_damaged(&self) -> bool {
        let version = serde_json::from_slice::<Version>(&self.0);
        self.brief().is_none() && version.map_or(true, |later| later.version == VERSION)
    }

    /// Whose it is, without its secrets. `None` as for [`brief`](Self::brief).
    pub(crate) fn known(&self) -> Option<Known> {
        let login = self.brief()?.login.hash();
        // Of tokens that another program put here, nothing else is known.
        let fields: Option<Owned> = serde_json::from_slice(&self.0).ok();
        let client = fields.as_ref().map(|fields| Pin(fields.issued_by.clone()).hash());
        let since = fields.map_or(0, |fields| fields.logged_in_at);
        Some(Known { login, client: client.unwrap_or_default(), since })
    }

    /// The tokens of a token response (RFC 6749 §5.1) that another program put here. When that
    /// was, nobody knows: so neither when they end.
    fn import(&self, epoch: u64, now: Moment) -> Option<Tokens> {
        let mut response = TokenResponse::parse(&self.0).ok()?;
        (response.expires_in, response.refresh_expires_in) = (None, None);
        let refresh = response.refresh_token.as_ref().map_or("", Secret::expose);
        let identity = Identity {
            // The same in each process that reads it, and in this one the next time.
            login: LoginId(digest(&["imported", response.access_token.expose(), refresh])),
            epoch,
            generation: 0,
            birth: Birth::Login,
            key: None,
        };
        let received = Moment { wall: UNIX_EPOCH, ..now };
        Some(Tokens { received: None, ..Tokens::received(&response, None, identity, received) })
    }
}

/// What tells a record from others, without its tokens.
#[derive(Clone, Debug)]
pub(crate) struct Brief {
    pub(crate) login: LoginId,
    pub(crate) generation: u64,
    /// The refresh token's SHA-256.
    pub(crate) refresh: Option<String>,
    pub(crate) key: Option<JournalKey>,
}

impl Brief {
    pub(crate) fn of(tokens: &Tokens) -> Self {
        Self {
            login: tokens.login.clone(),
            generation: tokens.generation,
            refresh: tokens.refresh.as_ref().map(|token| fingerprint(token.secret())),
            key: tokens.key.clone(),
        }
    }
}

fn fingerprint(refresh_token: &str) -> String {
    digest(&["refresh token", refresh_token])
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record([redacted; {} bytes])", self.0.len())
    }
}

/// The server that a session's refresh token may go to, and no other: where the record and the
/// program disagree, nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin(pub(crate) String);

impl Pin {
    pub(crate) fn hash(&self) -> String {
        digest(&["client", &self.0])
    }
}

/// Why a record is of no use here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Corrupt,
    /// Written by a later version of this crate.
    Newer(u32),
    /// Its refresh token belongs to another token endpoint or client.
    OtherIssuer(String),
}

#[derive(Serialize)]
struct Fields<'a> {
    version: u32,
    login: String,
    generation: u64,
    replayed: bool,
    access_token: &'a str,
    refresh_token: Option<&'a str>,
    logged_in_at: u64,
    received_at: u64,
    expires_at: Option<u64>,
    refresh_expires_at: Option<u64>,
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    of_another: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a ServerMetadata>,
    issued_by: &'a str,
    #[serde(serialize_with = "in_clear")]
    journal_key: Option<Zeroizing<String>>,
    saved_by: &'a str,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Owned {
    login: String,
    generation: u64,
    replayed: bool,
    access_token: String,
    refresh_token: Option<String>,
    /// In a record that doesn't say: long ago.
    #[serde(default)]
    logged_in_at: u64,
    received_at: u64,
    expires_at: Option<u64>,
    refresh_expires_at: Option<u64>,
    scope: Option<String>,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    of_another: bool,
    #[serde(default)]
    server: Option<ServerMetadata>,
    issued_by: String,
    #[serde(default)]
    journal_key: Option<String>,
    #[serde(default)]
    saved_by: String,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.access_token.zeroize();
        self.refresh_token.zeroize();
        self.journal_key.zeroize();
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's way to ask")]
fn is_false(value: &bool) -> bool {
    !value
}

fn in_clear<S: Serializer>(
    key: &Option<Zeroizing<String>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    key.as_ref().map(|key| key.as_str()).serialize(serializer)
}

/// Milliseconds since 1970, the unit of every time in a record.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn from_millis(millis: u64) -> SystemTime {
    // A damaged number is a time long ago: the token counts as expired, a refresh puts it right.
    (UNIX_EPOCH.checked_add(Duration::from_millis(millis))).unwrap_or(UNIX_EPOCH)
}

const VERSION: u32 = 1;

/// One allocation for most records, so that no half-written copy is left behind unwiped.
const ROOM: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Identity;

    #[test]
    fn a_record_gives_back_what_was_stored() {
        let now = Moment::now();
        let response = TokenResponse::new("at-canary")
            .refresh_token("rt-canary")
            .scope("read write")
            .subject("https://id.example.com alice")
            .expires_in(Duration::from_secs(3600))
            .refresh_expires_in(Duration::from_secs(7200));
        let identity = Identity {
            login: LoginId("0123".into()),
            epoch: 4,
            generation: 7,
            birth: Birth::ReplayedRefresh,
            key: Some(JournalKey::random().unwrap()),
        };
        let begun = Moment { wall: now.wall - Duration::from_secs(60), ..now };
        let login = Identity { login: identity.login.clone(), key: None, ..identity };
        let login = Tokens::received(&response, None, login, begun);
        let tokens = Tokens::received(&response, Some(&login), identity, now);
        let record = Record::of(&tokens, &pin());
        let copy = Record::from_bytes(record.as_bytes()).read(&pin(), 9, now).unwrap();
        assert_eq!(copy.login, tokens.login);
        assert_eq!(copy.epoch, 9);
        assert_eq!(copy.generation, 7);
        assert_eq!(copy.birth, Birth::ReplayedRefresh);
        assert_eq!(copy.access.expose(), "at-canary");
        assert_eq!(copy.refresh.unwrap().secret(), "rt-canary");
        assert_eq!(copy.scope.as_deref(), Some("read write"));
        assert_eq!(copy.subject.as_deref(), Some("https://id.example.com alice"));
        assert_eq!(millis(copy.received_at), millis(now.wall));
        assert_eq!(millis(copy.logged_in_at), millis(now.wall) - 60_000);
        assert_eq!(copy.header, "Bearer at-canary");
        assert!(copy.header.is_sensitive());
        assert_eq!(millis(copy.expiry.unwrap().at.wall), millis(now.wall) + 3_600_000);
        assert_eq!(millis(copy.refresh_expires_at.unwrap()), millis(now.wall) + 7_200_000);
        assert_eq!(format!("{record:?}"), format!("Record([redacted; {} bytes])", record.0.len()));
    }

    #[test]
    fn a_newer_a_foreign_and_a_damaged_record_are_told_apart() {
        let read = |text: &str| {
            let record = Record::from_bytes(text.as_bytes());
            record.read(&pin(), 0, Moment::now()).map(|_| ()).unwrap_err()
        };
        let is_damaged = |text: &str| Record::from_bytes(text.as_bytes()).is_damaged();
        let newer = r#"{"version":2,"all":"new"}"#;
        assert_eq!(read(newer), Unreadable::Newer(2));
        assert!(!is_damaged(newer));
        for damaged in ["", "{", "[]", "{}", r#"{"version":1}"#, "\0\0\0"] {
            assert_eq!(read(damaged), Unreadable::Corrupt, "{damaged:?}");
            assert!(is_damaged(damaged), "{damaged:?}");
        }
        let whole = r#"{"version":1,"login":"l","generation":0,"replayed":false,"access_token":"a","received_at":1,"issued_by":"elsewhere"}"#;
        assert_eq!(read(whole), Unreadable::OtherIssuer("elsewhere".into()));
        assert!(!is_damaged(whole));
        let bad_token = whole.replace("\"a\"", "\"a\\n\"").replace("elsewhere", &pin().0);
        assert_eq!(read(&bad_token), Unreadable::Corrupt);
        let far = whole
            .replace("\"received_at\":1", "\"received_at\":18446744073709551615")
            .replace("elsewhere", &pin().0);
        let record = Record::from_bytes(far.as_bytes());
        assert!(record.read(&pin(), 0, Moment::now()).is_ok(), "no panic on an absurd time");
    }

    #[test]
    fn a_token_response_of_another_program_is_a_login_of_unknown_age() {
        let text = r#" {"access_token":"at","refresh_token":"rt","expires_in":300,"scope":"a"}"#;
        let utf16 = text.trim().encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let read = |bytes: &[u8], epoch| {
            Record::from_bytes(bytes).read(&pin(), epoch, Moment::now()).unwrap()
        };
        let (first, again, wide) =
            (read(text.as_bytes(), 1), read(text.as_bytes(), 2), read(&utf16, 1));
        assert_eq!((&first.login, &first.login), (&again.login, &wide.login));
        assert_eq!((first.epoch, first.generation, first.birth), (1, 0, Birth::Login));
        assert_eq!((first.access.expose(), first.refresh.unwrap().secret()), ("at", "rt"));
        assert_eq!((wide.access.expose(), wide.refresh.unwrap().secret()), ("at", "rt"));
        assert_eq!((first.received_at, first.received), (UNIX_EPOCH, None));
        assert!(first.expiry.is_none() && first.refresh_expires_at.is_none());
        let other = read(br#"{"access_token":"at","refresh_token":"rt2"}"#, 1);
        assert_ne!(other.login, first.login);
        // As a record, from the first refresh on.
        let saved = Record::of(&again, &pin()).read(&pin(), 1, Moment::now()).unwrap();
        assert_eq!(saved.login, first.login);
    }

    fn pin() -> Pin {
        Pin("https://id.example.com/token client".into())
    }
}
