//! The engine depends on no runtime, no database and no entropy.

use std::process::Command;

#[test]
fn the_engine_depends_on_no_runtime_database_or_entropy() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let tree = Command::new(cargo)
        .args([
            "tree",
            "-p",
            "job-engine",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo can be run");
    let packages = String::from_utf8(tree.stdout).expect("cargo prints text");
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    assert!(packages.contains("rand_chacha"), "{packages}");
    for package in packages.lines().filter_map(|line| line.split(' ').next()) {
        let impure = ["tokio", "sqlx", "turmoil", "rand", "getrandom", "chrono"];
        assert!(
            !impure.contains(&package),
            "the engine depends on {package}"
        );
    }
}
