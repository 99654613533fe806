//! A Secret Service for one test alone: a D-Bus session, in it a GNOME Keyring, and the test once
//! more as a process of its own, whose keychain that is.
#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use secret_service::EncryptionType;
use secret_service::blocking::SecretService;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value};

/// The keychain's daemon, and what it needs. Ends with the test.
pub struct Keychain {
    daemon: Option<Child>,
}

/// Runs `test` in a D-Bus session of its own, with an unlocked keychain. `name` is the test's.
///
/// # Panics
/// The test fails, or what it needs is not installed.
pub fn in_a_session(name: &str, test: impl AsyncFnOnce(Keychain)) {
    alone(name, &[], || {
        let mut keychain = Keychain::down();
        // A process that the test starts in turn finds it running.
        if service().is_none() {
            keychain.start();
        }
        runtime().block_on(test(keychain));
    });
}

/// Runs `test` where there is no D-Bus at all.
pub fn without_a_session(name: &str, test: impl AsyncFnOnce()) {
    let nowhere = [("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")];
    alone(name, &nowhere, || runtime().block_on(test()));
}

/// A process of its own, since the session is found by the process's environment.
///
/// GNOME Keyring, up to version 50 at least, aborts now and then where programs come and go at the
/// same moment: in one of thousands of starts. What was tested then is nothing.
fn alone(name: &str, environment: &[(&str, &str)], test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == *name) {
        return test();
    }
    // The last time it has to pass, whatever the daemon does.
    if !(1..TIMES).any(|_| run(name, environment, true)) {
        run(name, environment, false);
    }
}

/// Whether the test, in a process of its own, has passed; if not, then because the keychain's
/// daemon aborted by itself, and that is forgiven.
fn run(name: &str, environment: &[(&str, &str)], forgives: bool) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let mut command = in_a_bus(directory.path());
    if !environment.is_empty() {
        command = at_home(Command::new(std::env::current_exe().unwrap()), directory.path());
    }
    let output = command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .envs(environment.iter().copied())
        .env(INSIDE, name)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{e}: tests/run-all installs dbus-daemon and gnome-keyring"));
    let text = said(&output);
    let daemon = errors_below(directory.path());
    if forgives && !output.status.success() && aborts_in(&daemon) > 0 {
        // Said also where the test passes then.
        let told =
            format!("{name}: the keychain's daemon aborted by itself, so once more:\n{daemon}");
        let _ = std::io::stderr().write_all(told.as_bytes());
        return false;
    }
    assert!(output.status.success(), "inside:\n{text}\nthe keychain's daemon:\n{daemon}");
    assert!(text.contains("1 passed"), "the test {name:?} did not run:\n{text}");
    true
}

/// This program once more, in a D-Bus session of its own, with its home in `directory`.
pub fn in_a_bus(directory: &Path) -> Command {
    let config = directory.join("session.conf");
    fs::write(&config, SESSION).unwrap();
    let mut command = at_home(Command::new("dbus-run-session"), directory);
    command.arg("--config-file").arg(&config).arg("--").arg(std::env::current_exe().unwrap());
    command
}

/// The keychain's data is found by HOME, its control socket by XDG_RUNTIME_DIR.
fn at_home(mut command: Command, directory: &Path) -> Command {
    let run = directory.join("run");
    fs::create_dir_all(&run).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    command
        .envs(["cargo", "rustup"].map(tool_home))
        .env("HOME", directory)
        .env("XDG_RUNTIME_DIR", &run)
        .env_remove("XDG_DATA_HOME")
        .env_remove("DBUS_SESSION_BUS_ADDRESS");
    command
}

/// Where a build tool keeps its things: below the home directory, unless it is told.
fn tool_home(tool: &str) -> (String, PathBuf) {
    let name = format!("{}_HOME", tool.to_uppercase());
    let home = || Path::new(&std::env::var_os("HOME").unwrap()).join(format!(".{tool}"));
    let path = std::env::var_os(&name).map_or_else(home, PathBuf::from);
    (name, path)
}

/// How often the daemon of this process's keychain has aborted by itself.
pub fn aborts() -> usize {
    aborts_in(&errors_below(Path::new(&std::env::var_os("HOME").unwrap())))
}

fn errors_below(home: &Path) -> String {
    fs::read_to_string(home.join(ERRORS)).unwrap_or_default()
}

fn aborts_in(errors: &str) -> usize {
    ABORTED.iter().map(|sign| errors.matches(sign).count()).sum()
}

/// What a process wrote, to both its streams.
pub fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

impl Keychain {
    /// Without a daemon, until it is started.
    pub fn down() -> Self {
        Self { daemon: None }
    }

    /// Starts the daemon, with the keychain unlocked.
    pub fn start(&mut self) {
        self.spawn(&["--unlock"], PASSWORD);
        // It says so too when it could not unlock: only a round trip tells.
        assert!(!self.is_locked());
    }

    /// Starts the daemon as it starts at a login without a password.
    pub fn start_locked(&mut self) {
        self.spawn(&["--start"], "");
        assert!(self.is_locked());
    }

    fn spawn(&mut self, how: &[&str], password: &str) {
        self.launch(how, password);
        wait_until(|| service().is_some());
    }

    /// Where its daemon says what is wrong. Not a pipe of the test's: it may outlive that.
    fn errors() -> fs::File {
        let path = Path::new(&std::env::var_os("HOME").unwrap()).join(ERRORS);
        fs::OpenOptions::new().create(true).append(true).open(path).unwrap()
    }

    fn launch(&mut self, how: &[&str], password: &str) {
        assert!(self.daemon.is_none());
        let mut daemon = Command::new("gnome-keyring-daemon")
            .args(["--foreground", "--components=secrets"])
            .args(how)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Self::errors())
            .spawn()
            .unwrap_or_else(|e| panic!("{e}: tests/run-all installs gnome-keyring"));
        daemon.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        self.daemon = Some(daemon);
    }

    /// As `kill -9`: returns when it is gone from the bus.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        // Its control socket would make the next one believe that it still runs.
        let _ = fs::remove_dir_all(
            Path::new(&std::env::var_os("XDG_RUNTIME_DIR").unwrap()).join("keyring"),
        );
    }

    pub fn restart(&mut self) {
        self.kill();
        self.start();
    }

    /// Stops it where it is, as a hung program does.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on. GNOME Keyring 42 may end then, by an assertion of its own (seen once in some
    /// thousand times): it is started again, as a user would.
    pub fn thaw(&mut self) {
        self.signal("-CONT");
        // What it was asked meanwhile comes first.
        if service().is_none() {
            let status = self.daemon.take().unwrap().wait().unwrap();
            assert!(status.to_string().contains("SIGTRAP"), "it went on and ended: {status}");
            self.start();
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.daemon.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    pub fn lock(&self) {
        let service = service().unwrap();
        service.get_default_collection().unwrap().lock().unwrap();
        assert!(self.is_locked());
    }

    /// Unlocks it with the password, by the way that GNOME's own login takes.
    pub fn unlock(&self) {
        let bus = zbus::blocking::Connection::session().unwrap();
        let root = "/org/freedesktop/secrets";
        let name = Some("org.freedesktop.secrets");
        let open = ("plain", Value::from(""));
        let interface = Some("org.freedesktop.Secret.Service");
        let opened = bus.call_method(name, root, interface, "OpenSession", &open).unwrap();
        let (_, session) = opened.body().deserialize::<(OwnedValue, OwnedObjectPath)>().unwrap();
        let secret = (session, Vec::<u8>::new(), PASSWORD.as_bytes().to_vec(), "text/plain");
        let login = ObjectPath::try_from("/org/freedesktop/secrets/collection/login").unwrap();
        let interface = Some("org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface");
        let method = "UnlockWithMasterPassword";
        bus.call_method(name, root, interface, method, &(login, secret)).unwrap();
        assert!(!self.is_locked());
    }

    fn is_locked(&self) -> bool {
        service().unwrap().get_default_collection().unwrap().is_locked().unwrap()
    }

    /// The user names and secrets of all entries of `service`, in order.
    pub fn entries(&self, of: &str) -> Vec<(String, Vec<u8>)> {
        let service = service().unwrap();
        let found = service.search_items([("service", of)].into()).unwrap();
        let mut entries: Vec<_> = (found.unlocked.iter())
            .map(|item| {
                let name = item.get_attributes().unwrap().remove("username").unwrap();
                (name, item.get_secret().unwrap())
            })
            .collect();
        entries.sort();
        entries
    }

    /// Puts an entry in as another program would.
    pub fn put(&self, of: &str, user: &str, secret: &[u8]) {
        let service = service().unwrap();
        let attributes = [("service", of), ("username", user)].into();
        let collection = service.get_default_collection().unwrap();
        collection.create_item("test", attributes, secret, true, "text/plain").unwrap();
    }

    /// As [`put`](Self::put), next to one that is there.
    pub fn put_beside(&self, of: &str, user: &str, secret: &[u8]) {
        let service = service().unwrap();
        let attributes = [("service", of), ("username", user), ("program", "other")].into();
        let collection = service.get_default_collection().unwrap();
        collection.create_item("test", attributes, secret, false, "text/plain").unwrap();
    }

    /// Takes an entry out as another program would.
    pub fn take(&self, of: &str, user: &str) {
        let service = service().unwrap();
        let found = service.search_items([("service", of), ("username", user)].into()).unwrap();
        assert_eq!(found.unlocked.len(), 1);
        found.unlocked[0].delete().unwrap();
    }

    /// Starts the daemon of a user who has no keychain yet.
    pub fn start_empty(&mut self) {
        let home = std::env::var_os("HOME").unwrap();
        fs::remove_dir_all(Path::new(&home).join(".local/share/keyrings")).unwrap();
        self.launch(&["--start"], "");
        wait_until(|| SecretService::connect(EncryptionType::Plain).is_ok());
        assert!(service().is_none());
    }
}

impl Drop for Keychain {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn service() -> Option<SecretService<'static>> {
    let service = SecretService::connect(EncryptionType::Plain).ok()?;
    let is_ready = service.get_default_collection().is_ok();
    is_ready.then_some(service)
}

fn wait_until(is_up: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_up() {
        assert!(Instant::now() < end, "the keychain's daemon does not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

const ERRORS: &str = "gnome-keyring-daemon.errors";
/// As GLib ends a program that has broken its rules.
const ABORTED: [&str; 2] = ["GLib-ERROR", "GLib-GIO:ERROR"];
pub const TIMES: usize = 3;
const INSIDE: &str = "REAUTH_TEST_INSIDE";
const PASSWORD: &str = "open sesame";

/// A bus that starts nothing by itself: who is killed stays dead, and nobody asks a person. Its
/// limits are those of a desktop's bus: without them it has few connections for each user.
const SESSION: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:tmpdir=/tmp</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
  <limit name="max_incomplete_connections">10000</limit>
  <limit name="max_completed_connections">100000</limit>
  <limit name="max_connections_per_user">100000</limit>
  <limit name="max_replies_per_connection">50000</limit>
  <limit name="auth_timeout">240000</limit>
</busconfig>
"#;
