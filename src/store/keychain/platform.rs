//! The keychain of each platform.

pub(super) use imp::native;

/// The Secret Service, by D-Bus: GNOME Keyring, KWallet, KeePassXC.
#[cfg(all(unix, not(target_vendor = "apple")))]
mod imp {
    use keyring_core::error::PlatformError;
    use secret_service::EncryptionType;
    use secret_service::blocking::SecretService;
    use zbus_secret_service_keyring_store::Store;

    use crate::store::StoreError;
    use crate::store::keychain::backend::{Backend, Naming};

    pub(in super::super) fn native() -> Backend {
        Backend {
            id: "keychain".into(),
            name: "the keychain (Secret Service)".into(),
            open: Box::new(|| Ok(Store::new()?)),
            naming: Naming::PLAIN,
            reconnects: true,
            splits: false,
            asks_a_person,
            not_opened: |e| StoreError::unavailable(NOT_OPENED).with_source(e),
            refused,
        }
    }

    fn refused(why: PlatformError) -> StoreError {
        use secret_service::Error::{Locked, NoResult, Prompt};

        match why.downcast_ref() {
            Some(Locked | Prompt) => StoreError::locked(LOCKED).with_source(why),
            // The only answer that may be empty.
            Some(NoResult) => StoreError::unavailable(NO_KEYRING).with_source(why),
            _ => StoreError::unavailable(FAILED).with_source(why),
        }
    }

    /// A locked collection leads to a prompt, and so does an entry that is locked by itself: to
    /// KeePassXC, one that this program may not read yet. Asked on a connection of its own, since
    /// the other one waits; a service that is hung doesn't answer here either. Only listed, an
    /// entry brings up no other prompt.
    fn asks_a_person(service: &str, account: &str) -> bool {
        let locked = || -> Result<bool, secret_service::Error> {
            let keychain = SecretService::connect(EncryptionType::Plain)?;
            let default = keychain.get_default_collection();
            if default.and_then(|default| default.is_locked()).unwrap_or(false) {
                return Ok(true);
            }
            let entry = [("service", service), ("username", account)].into();
            Ok(!keychain.search_items(entry)?.locked.is_empty())
        };
        locked().unwrap_or(false)
    }

    const NOT_OPENED: &str = "no Secret Service answers on this session's D-Bus: start one (GNOME \
        Keyring, KWallet or KeePassXC), or, on a host that has none, choose to keep the tokens in \
        a file";
    const NO_KEYRING: &str = "it has no default keyring: make one with your desktop's password \
        manager, or choose to keep the tokens in a file";
    const LOCKED: &str = "it is locked, and nobody unlocked it: unlock it, then try again";
    const FAILED: &str = "the Secret Service failed: restart it if that goes on, then try again";
}

/// The login keychain of macOS. Not the protected one: that needs an entitlement.
#[cfg(target_os = "macos")]
mod imp {
    use apple_native_keyring_store::keychain::Store;
    use keyring_core::error::PlatformError;
    use security_framework::base::Error;

    use crate::store::StoreError;
    use crate::store::keychain::backend::{Backend, Naming};

    pub(in super::super) fn native() -> Backend {
        Backend {
            id: "keychain".into(),
            name: "the keychain (macOS Keychain)".into(),
            open: Box::new(|| Ok(Store::new()?)),
            naming: Naming::PLAIN,
            // There is no connection: trying again would ask a person again who has said no.
            reconnects: false,
            splits: false,
            // The system asks people, and does not hang.
            asks_a_person: |_, _| true,
            not_opened: refused,
            refused,
        }
    }

    fn refused(why: PlatformError) -> StoreError {
        match why.downcast_ref().map(|error: &Error| error.code()) {
            Some(CANCELED | AUTH_FAILED) => StoreError::locked(LOCKED).with_source(why),
            Some(INTERACTION_NOT_ALLOWED) => StoreError::unasked(LOCKED).with_source(why),
            Some(NO_SUCH_KEYCHAIN) => StoreError::unavailable(NO_KEYCHAIN).with_source(why),
            _ => StoreError::unavailable(FAILED).with_source(why),
        }
    }

    // Security framework result codes.
    const CANCELED: i32 = -128;
    const AUTH_FAILED: i32 = -25293;
    const NO_SUCH_KEYCHAIN: i32 = -25294;
    /// As over SSH, where nobody can be asked.
    const INTERACTION_NOT_ALLOWED: i32 = -25308;

    const LOCKED: &str = "it is locked, or access was denied: unlock it (over SSH: `security \
        unlock-keychain`), then try again";
    const NO_KEYCHAIN: &str = "there is no login keychain: make one with Keychain Access, or \
        choose to keep the tokens in a file";
    const FAILED: &str = "it refused: try again, or choose to keep the tokens in a file";
}

/// The Credential Manager of Windows.
#[cfg(windows)]
mod imp {
    use keyring_core::error::PlatformError;
    use windows_native_keyring_store::Store;

    use super::windows_name;
    use crate::store::StoreError;
    use crate::store::keychain::backend::{Backend, Naming};

    pub(in super::super) fn native() -> Backend {
        Backend {
            id: "keychain".into(),
            name: "the keychain (Windows Credential Manager)".into(),
            open: Box::new(|| Ok(Store::new()?)),
            naming: Naming {
                // The default roams: two machines would share a rotating token.
                modifiers: &[("persistence", "Local")],
                service: windows_name::service,
                account: windows_name::account,
                search: |service, prefix| {
                    let service = service.replace('.', r"\.");
                    ("pattern", format!(r"^{prefix}[^.]*\.{service}$"))
                },
                // By the pattern; what is found can't say more where a service has dots.
                belongs: |_entry, _service, _prefix| true,
            },
            reconnects: false,
            splits: true,
            asks_a_person: |_, _| false,
            not_opened: refused,
            refused,
        }
    }

    fn refused(why: PlatformError) -> StoreError {
        StoreError::unavailable(FAILED).with_source(why)
    }

    const FAILED: &str = "it can't be used in this logon session, as over SSH: use one at the \
        machine, or choose to keep the tokens in a file";
}

#[cfg(not(any(windows, target_os = "macos", all(unix, not(target_vendor = "apple")))))]
compile_error!("no keychain is known on this platform: turn the feature `keychain` off");

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
