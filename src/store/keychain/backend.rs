//! What the keychains of the keyring family differ in.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use keyring_core::error::PlatformError;
use keyring_core::{CredentialStore, Entry, Error as Refusal, Result};

use crate::store::StoreError;

/// One kind of keychain: how to connect to it, how its entries are named, and what its refusals
/// mean to a person.
pub(super) struct Backend {
    pub(super) name: Cow<'static, str>,
    /// Stays the same, also where the name is put better.
    pub(super) id: Cow<'static, str>,
    pub(super) open: Box<Open>,
    pub(super) naming: Naming,
    /// Whether a connection goes bad when the keychain's daemon is restarted.
    pub(super) reconnects: bool,
    /// Whether its entries have a size limit that records reach.
    pub(super) splits: bool,
    /// Whether a call for the entry of that service and account waits for a person.
    pub(super) asks_a_person: fn(&str, &str) -> bool,
    pub(super) not_opened: fn(PlatformError) -> StoreError,
    /// What a `NoStorageAccess` or `PlatformFailure` means.
    pub(super) refused: fn(PlatformError) -> StoreError,
}

pub(super) type Open = dyn Fn() -> Result<Arc<CredentialStore>> + Send + Sync;

/// How its entries are named and found.
pub(super) struct Naming {
    pub(super) modifiers: &'static [(&'static str, &'static str)],
    pub(super) service: fn(&str) -> Cow<'_, str>,
    pub(super) account: fn(&str) -> Cow<'_, str>,
    /// What to search for, given the names of a service and the beginning of an account's.
    pub(super) search: fn(&str, &str) -> (&'static str, String),
    pub(super) belongs: fn(&Entry, &str, &str) -> bool,
}

impl Backend {
    /// Another store of the family, of which nothing is known.
    pub(super) fn other(name: String, open: Box<Open>) -> Self {
        Self {
            id: format!("keyring {name:?}").into(),
            name: name.into(),
            open,
            naming: Naming::PLAIN,
            reconnects: true,
            splits: true,
            asks_a_person: |_, _| false,
            not_opened: |e| StoreError::unavailable("it can't be opened").with_source(e),
            refused: |e| StoreError::unavailable("it can't be used now").with_source(e),
        }
    }

    /// The entry of that name. Doesn't ask the keychain.
    pub(super) fn entry(
        &self,
        store: &CredentialStore,
        service: &str,
        account: &str,
    ) -> Result<Entry> {
        let Naming { modifiers, service: of, account: user, .. } = self.naming;
        let modifiers: HashMap<&str, &str> = modifiers.iter().copied().collect();
        let modifiers = Some(&modifiers).filter(|modifiers| !modifiers.is_empty());
        store.build(&of(service), &user(account), modifiers)
    }

    /// The entries of `service` whose account begins with `prefix`, as far as they can be listed.
    pub(super) fn entries(
        &self,
        store: &CredentialStore,
        service: &str,
        prefix: &str,
    ) -> Result<Vec<Entry>> {
        let naming = &self.naming;
        let (service, prefix) = ((naming.service)(service), (naming.account)(prefix));
        let (key, value) = (naming.search)(&service, &prefix);
        match store.search(&HashMap::from([(key, &*value)])) {
            Ok(found) => Ok((found.into_iter())
                .filter(|entry| (naming.belongs)(entry, &service, &prefix))
                .collect()),
            Err(Refusal::NotSupportedByStore(_) | Refusal::Invalid(..)) => Ok(Vec::new()),
            Err(refusal) => Err(refusal),
        }
    }
}

impl Naming {
    /// Names as they are.
    pub(super) const PLAIN: Self = Self {
        modifiers: &[],
        service: |name| name.into(),
        account: |name| name.into(),
        search: |service, _prefix| ("service", service.to_owned()),
        belongs: |entry, service, prefix| {
            (entry.get_specifiers())
                .is_some_and(|(of, account)| of == service && account.starts_with(prefix))
        },
    };
}
