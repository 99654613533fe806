//! The README promises nothing that no test asserts.

use std::fs;
use std::path::Path;

#[test]
fn each_guarantee_in_the_readme_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, rest) = readme.split_once("<!-- guarantees -->").unwrap();
    let (guarantees, _) = rest.split_once("<!-- /guarantees -->").unwrap();
    let code = [sources(&root.join("src")), sources(&root.join("tests"))].concat();

    // A test's name is a sentence; other code in backticks is shorter.
    let names: Vec<_> = guarantees
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.matches('_').count() > 2)
        .collect();
    for name in &names {
        assert!(code.contains(&format!("fn {name}()")), "no test is named {name}");
    }
    for line in guarantees.split("\n- ").skip(1) {
        assert!(names.iter().any(|name| line.contains(name)), "without a test: {line}");
    }
    assert!(names.len() >= 20, "the list was not found whole");
}

/// All Rust code below a directory.
fn sources(directory: &Path) -> String {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.map(|path| match path.is_dir() {
        true => sources(&path),
        false if path.extension().is_some_and(|ending| ending == "rs") => {
            fs::read_to_string(&path).unwrap()
        }
        false => String::new(),
    });
    files.collect()
}
