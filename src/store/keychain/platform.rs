//! Where the platforms' keychains differ.

use std::collections::HashMap;
use std::sync::Arc;

use keyring_core::{CredentialStore, Entry, Result};

pub(super) use imp::{FAILED, LOCKED, NAME, NOT_OPENED, asks_a_person, open};

/// The entry of that name. Doesn't ask the keychain.
pub(super) fn entry(store: &CredentialStore, service: &str, account: &str) -> Result<Entry> {
    let modifiers = HashMap::from(imp::MODIFIERS);
    store.build(&imp::service(service), &imp::account(account), Some(&modifiers))
}

/// The entries of `service` whose account begins with `prefix`, as far as they can be listed.
pub(super) fn entries(store: &CredentialStore, service: &str, prefix: &str) -> Vec<Entry> {
    let (service, prefix) = (imp::service(service), imp::account(prefix));
    let (key, value) = imp::search(&service, &prefix);
    let found = store.search(&HashMap::from([(key, &*value)])).unwrap_or_default();
    found.into_iter().filter(|entry| imp::belongs(entry, &service, &prefix)).collect()
}

/// The Secret Service, by D-Bus: GNOME Keyring, KWallet, KeePassXC.
#[cfg(all(unix, not(target_vendor = "apple")))]
mod imp {
    use super::{Arc, CredentialStore, Result};
    use secret_service::EncryptionType;
    use secret_service::blocking::SecretService;
    use std::borrow::Cow;

    pub(super) use super::{specified as belongs, unchanged as account, unchanged as service};

    pub(in super::super) const NAME: &str = "the keychain (Secret Service)";
    pub(in super::super) const NOT_OPENED: &str = "no Secret Service answers on this session's \
        D-Bus: start one (GNOME Keyring, KWallet or KeePassXC), or, on a host that has none, \
        choose to keep the tokens in a file";
    pub(in super::super) const LOCKED: &str =
        "it is locked, and nobody unlocked it: unlock it, then try again";
    pub(in super::super) const FAILED: &str =
        "the Secret Service failed: look at its log, restart it, then try again";
    pub(super) const MODIFIERS: [(&str, &str); 0] = [];

    pub(in super::super) fn open() -> Result<Arc<CredentialStore>> {
        Ok(zbus_secret_service_keyring_store::Store::new()?)
    }

    pub(super) fn search<'a>(service: &'a str, _prefix: &str) -> (&'static str, Cow<'a, str>) {
        ("service", service.into())
    }

    /// A locked collection leads to a prompt. Asked on a connection of its own, since the other
    /// one waits; a service that is hung doesn't answer here either.
    pub(in super::super) fn asks_a_person() -> bool {
        let locked = || -> std::result::Result<bool, secret_service::Error> {
            SecretService::connect(EncryptionType::Plain)?.get_default_collection()?.is_locked()
        };
        locked().unwrap_or(false)
    }
}

/// The login keychain of macOS. Not the protected one: that needs an entitlement.
#[cfg(target_os = "macos")]
mod imp {
    use super::{Arc, CredentialStore, Result};
    use std::borrow::Cow;

    pub(super) use super::{specified as belongs, unchanged as account, unchanged as service};

    pub(in super::super) const NAME: &str = "the keychain (macOS Keychain)";
    pub(in super::super) const NOT_OPENED: &str = "there is no login keychain: open Keychain \
        Access and make one, or choose to keep the tokens in a file";
    pub(in super::super) const LOCKED: &str =
        "it can't be used: unlock it (`security unlock-keychain`), then try again";
    pub(in super::super) const FAILED: &str = "it refused: if it is locked and can't ask, as over \
        SSH, unlock it (`security unlock-keychain`), then try again";
    pub(super) const MODIFIERS: [(&str, &str); 0] = [];

    pub(in super::super) fn open() -> Result<Arc<CredentialStore>> {
        Ok(apple_native_keyring_store::keychain::Store::new()?)
    }

    pub(super) fn search<'a>(service: &'a str, _prefix: &str) -> (&'static str, Cow<'a, str>) {
        ("service", service.into())
    }

    /// The system asks people, and does not hang.
    pub(in super::super) fn asks_a_person() -> bool {
        true
    }
}

/// The Credential Manager of Windows.
#[cfg(windows)]
mod imp {
    use super::{Arc, CredentialStore, Entry, Result};
    use std::borrow::Cow;

    pub(super) use super::windows_name::{account, service};

    pub(in super::super) const NAME: &str = "the keychain (Windows Credential Manager)";
    pub(in super::super) const NOT_OPENED: &str =
        "the Credential Manager can't be opened: choose to keep the tokens in a file";
    pub(in super::super) const LOCKED: &str = "this logon session has no credentials, as over \
        SSH: use a session at the machine, or choose to keep the tokens in a file";
    pub(in super::super) const FAILED: &str = "the Credential Manager refused: try again, or \
        choose to keep the tokens in a file";
    /// The default roams: two machines would share a rotating token.
    pub(super) const MODIFIERS: [(&str, &str); 1] = [("persistence", "Local")];

    pub(in super::super) fn open() -> Result<Arc<CredentialStore>> {
        Ok(windows_native_keyring_store::Store::new()?)
    }

    pub(super) fn search(service: &str, prefix: &str) -> (&'static str, Cow<'static, str>) {
        let service = service.replace('.', r"\.");
        ("pattern", format!(r"^{prefix}[^.]*\.{service}$").into())
    }

    pub(super) fn belongs(_entry: &Entry, _service: &str, _prefix: &str) -> bool {
        true // By the pattern: more is not known of what was found.
    }

    pub(in super::super) fn asks_a_person() -> bool {
        false
    }
}

#[cfg(not(any(windows, target_os = "macos", all(unix, not(target_vendor = "apple")))))]
compile_error!("no keychain is known on this platform: turn the feature `keychain` off");

#[cfg(unix)]
fn unchanged(name: &str) -> std::borrow::Cow<'_, str> {
    name.into()
}

#[cfg(unix)]
fn specified(entry: &Entry, service: &str, prefix: &str) -> bool {
    (entry.get_specifiers())
        .is_some_and(|(of, account)| of == service && account.starts_with(prefix))
}

/// On Windows an entry's name is `account.service`, in any case. So that no two are taken for
/// one, what could make them look alike is escaped. Simple names stay as other programs of the
/// keyring family have them.
#[cfg(any(windows, test))]
mod windows_name {
    use std::borrow::Cow;
    use std::fmt::Write;

    pub(super) fn account(name: &str) -> Cow<'_, str> {
        escaped(name, is_plain)
    }

    pub(super) fn service(name: &str) -> Cow<'_, str> {
        escaped(name, |byte| is_plain(byte) || byte == b'.')
    }

    fn is_plain(byte: u8) -> bool {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'@')
    }

    fn escaped(name: &str, plain: impl Fn(u8) -> bool) -> Cow<'_, str> {
        if name.bytes().all(&plain) {
            return name.into();
        }
        let escape = |mut out: String, byte| {
            // Writing to a String can't fail.
            let _ = match plain(byte) {
                true => write!(out, "{}", char::from(byte)),
                false => write!(out, "%{byte:02x}"),
            };
            out
        };
        name.bytes().fold(String::new(), escape).into()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn names_that_differ_stay_different_in_any_case() {
            let name = |of, user| format!("{}.{}", account(user), service(of)).to_uppercase();
            assert_eq!(name("my-cli", "work"), "WORK.MY-CLI");
            assert_eq!(name("my.cli", "me@example"), "ME@EXAMPLE.MY.CLI");
            let all = [
                ("a", "b.c"),
                ("c.a", "b"),
                ("a", "B.c"),
                ("A", "b.c"),
                ("a", "b%2ec"),
                ("é", ""),
                ("É", ""),
            ];
            for (n, (of, user)) in all.iter().enumerate() {
                for (other_of, other_user) in &all[..n] {
                    assert_ne!(name(of, user), name(other_of, other_user));
                }
            }
        }
    }
}
