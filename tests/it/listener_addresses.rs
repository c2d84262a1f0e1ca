//! Addresses that several listeners or several processes could have: each connection reaches exactly one.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Output;

use socket2::{Domain, Socket, Type};

use crate::support::{
    Configuration, Folder, Listener, Port, Postern, Printing, Process, World, activated_command, command, postern,
    run_to_end,
};

fn errors(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn output(mut command: Postern) -> Output {
    run_to_end(&mut command)
}

fn install(folder: &Folder, listeners: &[&str], admin: &str) -> std::path::PathBuf {
    let listeners: Vec<Listener> = listeners.iter().map(|address| Listener::at(address)).collect();
    folder.write("postern.toml", Configuration::new().listeners(listeners).set("admin.address", admin).to_toml())
}

#[test]
fn check_and_serve_refuse_overlapping_addresses_with_their_place() {
    let folder = Folder::new();
    let unix = format!("unix:{}", folder.join("a.sock").display());
    let other_spelling = format!("unix:{}/./b/../a.sock", folder.path().display());
    for (listeners, admin) in [
        (vec!["127.0.0.1:4711"], "127.0.0.1:4711"),
        (vec!["127.0.0.1:4711"], "[::ffff:127.0.0.1]:4711"),
        (vec!["0.0.0.0:4711"], "127.0.0.1:4711"),
        (vec!["127.0.0.1:4711", "0.0.0.0:4711"], "off"),
        (vec!["[::1]:4711", "[::]:4711"], "off"),
        (vec!["[::ffff:127.0.0.1]:4711", "127.0.0.1:4711"], "off"),
        (vec!["[::]:4711", "127.0.0.1:4711"], "off"),
        (vec![&unix, &other_spelling], "off"),
        (vec![&unix], &other_spelling),
    ] {
        let file = install(&folder, &listeners, admin);
        for command in ["check", "serve"] {
            let mut postern = postern();
            postern.args([command, "--config"]).arg(&file);
            let error = errors(&output(postern));
            let written = std::fs::read_to_string(&file).expect("the file is there");
            let mentioned = error.lines().nth(1).expect("the line with the mistake").trim();
            let place = error.strip_prefix(&format!("postern: {}:", file.display())).expect("a place").to_owned();
            let line: usize = place.split(':').next().expect("a line").parse().expect("a number");
            assert_eq!(written.lines().nth(line - 1), Some(mentioned), "{error}");
            assert!(mentioned.starts_with("address = ") && error.contains("this address overlaps"), "{error}");
        }
    }
}

#[tokio::test]
async fn ipv6_only_leaves_the_ipv4_addresses_to_another_listener() {
    let taken = Port::take_everywhere();
    let port = taken.address().port();
    let both = |ipv6_only: bool| {
        let wildcard = Listener::at(&format!("[::]:{port}")).set("ipv6_only", ipv6_only);
        Configuration::new().listeners([wildcard, Listener::at(&format!("0.0.0.0:{port}"))])
    };
    let refused = both(false).parse().expect_err("they overlap").to_string();
    assert!(refused.contains(&format!("this address overlaps [::]:{port}")), "{refused}");
    let world = World::builder().config(|_| both(true)).start().await;
    for address in [format!("[::1]:{port}"), format!("127.0.0.1:{port}")] {
        let client = world.gateway.at(address.parse().expect("an address"));
        assert_eq!(client.list("acme-1", "").await.status, 200, "{address}");
    }
}

#[tokio::test]
async fn a_reload_refuses_addresses_on_which_the_process_still_listens() {
    let world = World::builder().config(Configuration::admin).start().await;
    // The configuration moves the admin listener elsewhere, which takes a restart.
    let (admin, first) = (world.gateway.admin_address(), world.gateway.address);
    let any = |port: u16| Listener::at(&format!("0.0.0.0:{port}"));
    for (other, added) in
        [(admin, Listener::at(&admin.to_string())), (admin, any(admin.port())), (first, any(first.port()))]
    {
        let config = world.config().set("admin.address", "off").first_listener(added);
        let refused = world.gateway.try_reload(&config).expect_err("it overlaps").to_string();
        assert!(refused.contains(&format!("it overlaps {other}, on which this process listens")), "{refused}");
        assert_eq!(world.list("acme-1", "").await.status, 200);
    }
    // A listener can be replaced by a wider one.
    world.gateway.reload(&world.config().listeners([any(first.port())]));
    assert_eq!(world.list("acme-1", "").await.status, 200);
}

/// Waits until a demo has printed its addresses; returns that of the gateway and that of the status page.
fn demo(listen: &str, admin: &str) -> (Printing, [String; 2]) {
    let mut command = postern();
    let mut demo = command.args(["demo", "--listen", listen, "--admin", admin]).start_printing();
    let mut after = |mark: &str, end: [char; 2]| {
        let line = std::iter::from_fn(|| demo.next_line()).find(|line| line.contains(mark));
        let line = line.expect("the demo prints its address");
        let address = line.split("http://").nth(1).expect("a URL").split(end).next().expect("an address");
        address.to_owned()
    };
    let addresses = [after("Postern listens on", [',', ' ']), after("Status page", ['/', ' '])];
    (demo, addresses)
}

#[test]
fn a_second_demo_on_a_port_of_the_first_fails_and_names_it() {
    let (_first, [listen, admin]) = demo("127.0.0.1:0", "127.0.0.1:0");
    let wildcard = listen.replace("127.0.0.1", "0.0.0.0");
    for (taken, arguments) in [
        (&listen, ["demo", "--listen", &listen, "--admin", "127.0.0.1:0"]),
        (&wildcard, ["demo", "--listen", &wildcard, "--admin", "127.0.0.1:0"]),
        (&admin, ["demo", "--listen", "127.0.0.1:0", "--admin", &admin]),
    ] {
        let mut second = postern();
        second.args(arguments);
        let error = errors(&output(second));
        assert!(error.contains(&format!("can't listen on {taken}: another process listens there")), "{error}");
        assert!(error.contains("Address already in use"), "{error}");
    }
}

#[tokio::test]
async fn a_second_process_starts_only_to_take_over() {
    let folder = Folder::new();
    let path = folder.join("postern.sock");
    // A socket file that an ended process has left is not in use.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let listeners = [Listener::new(), Listener::unix(&path)];
    let first = Process::serve(&folder.write("first.toml", Configuration::new().listeners(listeners).to_toml())).await;
    let (tcp, unix) = (first.address().to_string(), format!("unix:{}", path.display()));
    for address in [&tcp, &unix] {
        let file = install(&folder, &[address.as_str()], "off");
        let error = errors(&output(command(&file)));
        assert!(error.contains(&format!("can't listen on {address}: another process listens there")), "{error}");
        let next = Process::take_over(&file).await;
        assert_eq!(next.terminate().await.status.code(), Some(0));
    }
}

fn inherit(file: &Path, address: &str, ipv6_only: bool) -> Postern {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
    socket.set_only_v6(ipv6_only).expect("the system allows it");
    socket.set_reuse_address(true).expect("the system allows it");
    let address: std::net::SocketAddr = address.parse().expect("an address");
    socket.bind(&address.into()).expect("the port is free");
    socket.listen(16).expect("it listens");
    activated_command(file, OwnedFd::from(socket))
}

#[tokio::test]
async fn an_inherited_socket_reaches_only_its_own_listener() {
    let folder = Folder::new();
    let taken = Port::take_everywhere();
    let port = taken.address().port();
    let (wildcard, ipv4) = (format!("[::]:{port}"), format!("0.0.0.0:{port}"));
    // Its address is that of no listener, though connections to the listener's address arrive at it.
    let file = install(&folder, &[&ipv4], "off");
    let error = errors(&output(inherit(&file, &wildcard, false)));
    assert!(error.contains(&format!("`web` on {wildcard}, and no listener has that address")), "{error}");
    let listeners = [Listener::at(&wildcard).set("ipv6_only", true), Listener::at(&ipv4)];
    let file = folder.write("postern.toml", Configuration::new().listeners(listeners).to_toml());
    let error = errors(&output(inherit(&file, &wildcard, false)));
    assert!(error.contains("it accepts IPv4 connections too, and its listener has ipv6_only"), "{error}");
    let process = Process::run(inherit(&file, &wildcard, true)).await;
    assert_eq!(process.terminate().await.status.code(), Some(0));
    // An IPv4-mapped address is the listener's IPv4 address.
    let file = install(&folder, &[&format!("127.0.0.1:{port}")], "off");
    let process = Process::run(inherit(&file, &format!("[::ffff:127.0.0.1]:{port}"), false)).await;
    assert_eq!(process.terminate().await.status.code(), Some(0));
}
