//! The keychain's store on another one of the keyring family, that fails at a chosen moment.
#![cfg(feature = "keychain")]

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use keyring_core::api::{Credential, CredentialApi, CredentialStoreApi};
use keyring_core::{CredentialStore, Entry, Error, Result};
use reqwest_reauth::{KeychainStore, Record, TokenStore};

type Map = Arc<Mutex<HashMap<(String, String), Vec<u8>>>>;

/// What becomes of an operation on the entry of a user: it fails, before or after it was done.
type Ask = Arc<dyn Fn(&str, &str) -> Option<When> + Send + Sync>;

enum When {
    Before,
    After,
}

#[derive(Clone)]
struct Family {
    map: Map,
    ask: Ask,
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Family")
    }
}

impl CredentialStoreApi for Family {
    fn vendor(&self) -> String {
        "test".to_owned()
    }

    fn id(&self) -> String {
        "family".to_owned()
    }

    fn build(&self, of: &str, user: &str, with: Option<&HashMap<&str, &str>>) -> Result<Entry> {
        assert!(with.is_none(), "no store knows another one's modifiers");
        let name = (of.to_owned(), user.to_owned());
        Ok(Entry::new_with_credential(Arc::new(Item { family: self.clone(), name })))
    }

    fn search(&self, _: &HashMap<&str, &str>) -> Result<Vec<Entry>> {
        let names: Vec<_> = self.map.lock().unwrap().keys().cloned().collect();
        let entry =
            |name| Entry::new_with_credential(Arc::new(Item { family: self.clone(), name }));
        self.step("search", "", || Ok(names.into_iter().map(entry).collect()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Family {
    fn step<T>(&self, what: &str, user: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let failed = || Err(Error::PlatformFailure("lost".into()));
        match (self.ask)(what, user) {
            None => act(),
            Some(When::Before) => failed(),
            Some(When::After) => act().and_then(|_| failed()),
        }
    }
}

#[derive(Clone, Debug)]
struct Item {
    family: Family,
    name: (String, String),
}

impl CredentialApi for Item {
    fn set_secret(&self, secret: &[u8]) -> Result<()> {
        if secret.len() > 2560 {
            return Err(Error::TooLong("secret".to_owned(), 2560));
        }
        self.family.step("set", &self.name.1, || {
            self.family.map.lock().unwrap().insert(self.name.clone(), secret.to_vec());
            Ok(())
        })
    }

    fn get_secret(&self) -> Result<Vec<u8>> {
        self.family.step("get", &self.name.1, || {
            self.family.map.lock().unwrap().get(&self.name).cloned().ok_or(Error::NoEntry)
        })
    }

    fn delete_credential(&self) -> Result<()> {
        self.family.step("delete", &self.name.1, || {
            let gone = self.family.map.lock().unwrap().remove(&self.name);
            gone.map(|_| ()).ok_or(Error::NoEntry)
        })
    }

    fn get_credential(&self) -> Result<Option<Arc<Credential>>> {
        Ok(None)
    }

    fn get_specifiers(&self) -> Option<(String, String)> {
        Some(self.name.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn store(
    map: &Map,
    ask: impl Fn(&str, &str) -> Option<When> + Send + Sync + 'static,
) -> KeychainStore {
    let family = Family { map: Arc::clone(map), ask: Arc::new(ask) };
    KeychainStore::with_backend("the vault", "my-cli", "work", move || {
        let store: Arc<CredentialStore> = Arc::new(family.clone());
        Ok(store)
    })
}

fn never(_: &str, _: &str) -> Option<When> {
    None
}

#[test]
fn a_save_whose_last_reply_is_lost_leaves_the_old_record_or_the_new_one() {
    let map = Map::default();
    let (old, new) = (Record::from_bytes(&[b'o'; 6000]), Record::from_bytes(&[b'n'; 7000]));
    store(&map, never).save(&old).unwrap();
    // The main entry is written and its reply lost; after that nothing can be read any more,
    // though what is there could be deleted.
    let step = AtomicUsize::new(0);
    let ask = move |what: &str, user: &str| match (what, user, step.load(Ordering::SeqCst)) {
        ("set", "work", 0) => None,
        ("set", "work", 1) => {
            step.store(2, Ordering::SeqCst);
            Some(When::After)
        }
        ("set", _, 0) => {
            step.store(1, Ordering::SeqCst);
            None
        }
        ("get", _, 2) => Some(When::Before),
        _ => None,
    };
    assert!(store(&map, ask).save(&new).unwrap_err().to_string().contains("can't be used"));
    let read = store(&map, never).load().unwrap().expect("the old one or the new one");
    assert!(read.as_bytes() == new.as_bytes());
}

#[test]
fn a_clear_that_cannot_look_for_leftovers_says_so_and_one_that_can_leaves_those_of_others() {
    let map = Map::default();
    let put = |of: &str, user: &str| {
        map.lock().unwrap().insert((of.to_owned(), user.to_owned()), b"piece".to_vec());
    };
    put("my-cli", "work (part) 0123456789abcdef.0");
    put("my-cli", "worker");
    put("other", "work (part) 0123456789abcdef.0");
    let cannot = |what: &str, _: &str| (what == "search").then_some(When::Before);
    store(&map, cannot).clear().unwrap_err();
    store(&map, never).clear().unwrap();
    let mut left: Vec<_> =
        map.lock().unwrap().keys().map(|(of, user)| format!("{of}/{user}")).collect();
    left.sort();
    assert_eq!(left, ["my-cli/worker", "other/work (part) 0123456789abcdef.0"]);
}

#[test]
fn a_read_that_meets_a_removal_elsewhere_is_tried_again() {
    let map = Map::default();
    store(&map, never).save(&Record::from_bytes(b"record")).unwrap();
    let gets = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&gets);
    let removing = Arc::clone(&map);
    // Found, and gone when it is looked at.
    let ask = move |what: &str, _: &str| {
        let first = what == "get" && count.fetch_add(1, Ordering::SeqCst) == 0;
        first.then(|| {
            removing.lock().unwrap().clear();
            When::Before
        })
    };
    assert!(store(&map, ask).load().unwrap().is_none());
    assert_eq!(gets.load(Ordering::SeqCst), 2);
}

#[test]
fn a_store_that_cannot_be_opened_is_called_by_its_name() {
    let closed = KeychainStore::with_backend("the vault", "my-cli", "work", || {
        Err(Error::PlatformFailure("no card in the reader".into()))
    });
    assert_eq!(closed.describe(), r#"the vault (entry "my-cli", account "work")"#);
    let error = closed.load().unwrap_err();
    assert_eq!(error.to_string(), "it can't be opened");
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "no card in the reader");
    assert!(!closed.asks_a_person());
}
