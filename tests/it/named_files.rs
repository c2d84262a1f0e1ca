//! Files that the configuration names and that are no ordinary files.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use crate::support::{Configuration, Folder, Process, ScriptedRefold, Tenant, command, postern, run_to_end};

/// A configuration whose org key is in a file.
fn with_key_file(file: &std::path::Path) -> Configuration {
    Configuration::new().admin().tenant(|tenant: Tenant| tenant.org_key_file(file))
}

fn make_pipe(folder: &Folder, name: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    path
}

#[test]
fn neither_a_pipe_nor_a_device_holds_up_the_start() {
    let folder = Folder::new();
    let pipe = make_pipe(&folder, "pipe");
    for file in [pipe.as_path(), "/dev/zero".as_ref(), "/dev/random".as_ref(), folder.path()] {
        let config = folder.write("postern.toml", with_key_file(file).to_toml());
        for mut command in [command(&config), {
            let mut check = postern();
            check.args(["check", "--config"]).arg(&config);
            check
        }] {
            let ended = run_to_end(&mut command);
            let error = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!((ended.status.code(), ended.status.signal()), (Some(1), None), "{error}");
            assert!(error.contains("it is no regular file") || error.contains("it is a directory"), "{error}");
        }
    }
}

#[test]
fn a_certificate_or_a_configuration_that_is_no_file_is_refused() {
    let folder = Folder::new();
    let pipe = make_pipe(&folder, "pipe");
    let key = crate::support::tls::data("server-1.key");
    let tls = |certificate: &std::path::Path, key: &std::path::Path| {
        let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
        Configuration::new()
            .listener(|listener| listener.set("tls.certificate", text(certificate)).set("tls.key", text(key)))
    };
    let large = folder.join("large.pem");
    std::fs::File::create(&large).and_then(|file| file.set_len(1 << 30)).expect("a sparse file");
    let certificate = crate::support::tls::data("server-1.pem");
    for (config, reason) in [
        (tls(&pipe, &key), "it is no regular file"),
        (tls(&certificate, "/dev/zero".as_ref()), "it is no regular file"),
        (tls(&large, &key), "it is larger than 1 MiB"),
        (tls(&certificate, &large), "it is larger than 64 KiB"),
        (Configuration::new().set("upstream.ca_file", large.to_str().expect("UTF-8")), "it is larger than 1 MiB"),
    ] {
        let file = folder.write("postern.toml", config.to_toml());
        let ended = run_to_end(&mut command(&file));
        let error = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && error.contains(reason), "{reason}: {error}");
    }
    let ended = run_to_end(&mut command(&pipe));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("it is no regular file"));
}

#[tokio::test]
async fn a_running_gateway_refuses_a_secret_that_grows_and_a_configuration_that_becomes_a_directory() {
    let folder = Folder::new();
    let key = folder.write("key", "tk_first");
    let upstream = ScriptedRefold::start().await.address();
    let file = folder.write("postern.toml", with_key_file(&key).upstream(upstream).to_toml());
    let mut process = Process::serve(&file).await;
    std::fs::File::create(&key).and_then(|file| file.set_len(1 << 30)).expect("a sparse file");
    process.until_logged("it is larger than 64 KiB", 1).await;
    folder.write("key", "tk_second");
    process.until_logged("\"config_reloaded\"", 1).await;
    std::fs::remove_file(&file).expect("it is ours");
    std::fs::create_dir(&file).expect("it is ours");
    process.until_logged("it is a directory", 1).await;
    std::fs::remove_dir(&file).expect("it is ours");
    folder.write("postern.toml", with_key_file(&key).upstream(upstream).client_limit(7, 7).to_toml());
    process.until_logged("\"config_reloaded\"", 2).await;
    assert_eq!(process.logged("\"config_refused\"").len(), 2);
    process.terminate().await;
}
