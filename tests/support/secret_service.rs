//! A Secret Service with one collection and one entry, whose prompts are answered by a person as
//! soon as somebody finds out, on another connection, that it is locked.
//!
//! It takes the number 1 for its half of the key exchange, so that the key is the same for every
//! client: what one has stored another can read, and nothing is decrypted here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use zbus::blocking::{Connection, connection};
use zbus::interface;
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Value};

type Attributes = HashMap<String, String>;
/// The session, the parameters, the value, the content type.
type Secret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

/// Ends with the test.
pub struct SecretService {
    shared: Shared,
    _bus: Connection,
}

#[derive(Clone)]
struct Shared {
    state: Arc<Mutex<State>>,
    /// Tells the person that they are waited for.
    waited_for: mpsc::Sender<()>,
}

#[derive(Default)]
struct State {
    collection_is_locked: bool,
    entry_is_locked: bool,
    entry: Option<(Attributes, Secret)>,
    is_prompting: bool,
    prompts: usize,
    saves: usize,
}

impl SecretService {
    /// On the bus of this process, which has none yet.
    pub fn start() -> Self {
        let (waited_for, person) = mpsc::channel();
        let shared = Shared { state: Arc::default(), waited_for };
        let bus = (connection::Builder::session().unwrap())
            .serve_at(SERVICE, Service(shared.clone()))
            .and_then(|bus| bus.serve_at(COLLECTION, Collection(shared.clone())))
            .and_then(|bus| bus.serve_at(ENTRY, Item(shared.clone())))
            .and_then(|bus| bus.serve_at(PROMPT, Prompt(shared.clone())))
            .and_then(|bus| bus.name("org.freedesktop.secrets"))
            .and_then(connection::Builder::build)
            .unwrap();
        let (state, at) = (Arc::clone(&shared.state), bus.clone());
        std::thread::spawn(move || person.iter().for_each(|()| answer(&state, &at)));
        Self { shared, _bus: bus }
    }

    pub fn lock(&self) {
        self.shared.state().collection_is_locked = true;
    }

    /// As KeePassXC, in an unlocked database, has it for a program that it does not know yet.
    pub fn lock_entry(&self) {
        self.shared.state().entry_is_locked = true;
    }

    /// The prompts that there were, and the saves.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.shared.state();
        (state.prompts, state.saves)
    }

    pub fn has_entry(&self) -> bool {
        self.shared.state().entry.is_some()
    }
}

/// The person says yes to the prompt that is up.
fn answer(state: &Mutex<State>, bus: &Connection) {
    {
        let mut state = state.lock().unwrap();
        if !std::mem::take(&mut state.is_prompting) {
            return;
        }
        (state.collection_is_locked, state.entry_is_locked) = (false, false);
    }
    let completed = (false, Value::from(""));
    let interface = "org.freedesktop.Secret.Prompt";
    bus.emit_signal(None::<&str>, PROMPT, interface, "Completed", &completed).unwrap();
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Whether something is locked. Who finds that out while a prompt is up can only be asking
    /// for whom it waits.
    fn is_locked(&self, what: impl FnOnce(&State) -> bool) -> bool {
        let state = self.state();
        let is_locked = what(&state);
        if is_locked && state.is_prompting {
            self.waited_for.send(()).unwrap();
        }
        is_locked
    }
}

struct Service(Shared);

#[interface(name = "org.freedesktop.Secret.Service")]
impl Service {
    fn open_session(&self, algorithm: &str, _input: Value<'_>) -> (OwnedValue, OwnedObjectPath) {
        let output = if algorithm == "plain" { Value::from("") } else { Value::from(vec![1_u8]) };
        (output.try_into().unwrap(), path(SESSION))
    }

    fn read_alias(&self, _name: &str) -> OwnedObjectPath {
        path(COLLECTION)
    }

    /// The unlocked ones and the locked ones.
    fn search_items(&self, wanted: Attributes) -> (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) {
        let is_it = |(has, _): &(Attributes, Secret)| {
            wanted.iter().all(|(name, value)| has.get(name) == Some(value))
        };
        let is_there = self.0.state().entry.as_ref().is_some_and(is_it);
        let is_locked = |state: &State| state.collection_is_locked || state.entry_is_locked;
        let is_locked = is_there && self.0.is_locked(is_locked);
        let found = |is_found: bool| is_found.then(|| path(ENTRY)).into_iter().collect();
        (found(is_there && !is_locked), found(is_locked))
    }

    /// None at once, and the prompt.
    fn unlock(&self, _objects: Vec<OwnedObjectPath>) -> (Vec<OwnedObjectPath>, OwnedObjectPath) {
        (Vec::new(), path(PROMPT))
    }
}

struct Collection(Shared);

#[interface(name = "org.freedesktop.Secret.Collection")]
impl Collection {
    #[zbus(property)]
    fn locked(&self) -> bool {
        self.0.is_locked(|state| state.collection_is_locked)
    }

    fn create_item(
        &self,
        mut properties: HashMap<String, OwnedValue>,
        secret: Secret,
        _replace: bool,
    ) -> (OwnedObjectPath, OwnedObjectPath) {
        let attributes = properties.remove("org.freedesktop.Secret.Item.Attributes").unwrap();
        let mut state = self.0.state();
        assert!(!state.collection_is_locked);
        state.entry = Some((attributes.try_into().unwrap(), secret));
        state.saves += 1;
        (path(ENTRY), path("/"))
    }
}

struct Item(Shared);

#[interface(name = "org.freedesktop.Secret.Item")]
impl Item {
    #[zbus(property)]
    fn locked(&self) -> bool {
        let state = self.0.state();
        state.collection_is_locked || state.entry_is_locked
    }

    fn get_secret(&self, session: OwnedObjectPath) -> (Secret,) {
        let (_, (_, parameters, value, kind)) = self.0.state().entry.clone().unwrap();
        ((session, parameters, value, kind),)
    }

    fn set_secret(&self, secret: Secret) {
        let mut state = self.0.state();
        state.entry.as_mut().unwrap().1 = secret;
        state.saves += 1;
    }

    fn delete(&self) -> OwnedObjectPath {
        self.0.state().entry = None;
        path("/")
    }
}

struct Prompt(Shared);

#[interface(name = "org.freedesktop.Secret.Prompt")]
impl Prompt {
    fn prompt(&self, _window: &str) {
        let mut state = self.0.state();
        state.prompts += 1;
        state.is_prompting = true;
    }
}

fn path(path: &str) -> OwnedObjectPath {
    path.try_into().unwrap()
}

const SERVICE: &str = "/org/freedesktop/secrets";
const SESSION: &str = "/org/freedesktop/secrets/session/1";
const COLLECTION: &str = "/org/freedesktop/secrets/collection/test";
const ENTRY: &str = "/org/freedesktop/secrets/collection/test/1";
const PROMPT: &str = "/org/freedesktop/secrets/prompt/1";
