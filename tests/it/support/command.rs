//! Commands that run the program. However one is run, no secret may be in its output.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::process::Running;
use super::{ENVIRONMENT, leaks};

/// A command that runs `postern`, directly or from a shell.
pub(crate) struct Postern(Command);

/// `postern`, with the secrets in its environment and nothing else of its own.
pub(crate) fn postern() -> Postern {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.env_remove("POSTERN_CONFIG").env_remove("POSTERN_LOG").envs(ENVIRONMENT);
    Postern(command)
}

/// `postern serve`.
pub(crate) fn command(configuration: &Path) -> Postern {
    let mut command = postern();
    command.args(["serve", "--config"]).arg(configuration);
    command
}

/// `postern serve`, with a socket that a service manager passes as `web`.
pub(crate) fn activated_command(configuration: &Path, socket: OwnedFd) -> Postern {
    let passes = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web";
    let mut shell = command(configuration).in_shell(passes);
    shell.0.stdin(Stdio::from(socket));
    shell
}

/// `postern serve` with limits on open files, as `ulimit` takes them: `-n 256`, `-Sn 256`.
pub(crate) fn limited_command(configuration: &Path, limits: &str) -> Postern {
    command(configuration).in_shell(&format!("ulimit {limits}"))
}

impl Postern {
    pub(crate) fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.0.arg(argument);
        self
    }

    pub(crate) fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.0.args(arguments);
        self
    }

    pub(crate) fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn envs(
        &mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Self {
        self.0.envs(variables);
        self
    }

    pub(crate) fn env_remove(&mut self, name: &str) -> &mut Self {
        self.0.env_remove(name);
        self
    }

    /// Has the standard output go elsewhere, where it is not captured.
    pub(crate) fn stdout(&mut self, out: impl Into<Stdio>) -> &mut Self {
        self.0.stdout(out);
        self
    }

    /// The same command after the commands of a shell. The process id stays the same over `exec`.
    pub(crate) fn in_shell(&self, script: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{script}; exec \"$@\""), "sh"]).arg(self.0.get_program()).args(self.0.get_args());
        shell.envs(self.0.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Self(shell)
    }

    /// Runs the command to its end, with a text on its standard input.
    pub(crate) fn run_with_input(&mut self, input: &str) -> Output {
        self.0.stdin(Stdio::piped());
        let mut child = self.start();
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("the program reads");
        checked(&self.0, child.wait_with_output().expect("the program ends"))
    }

    /// Starts the command, for a test that reads what it prints.
    pub(crate) fn start_printing(&mut self) -> Printing {
        let mut child = self.start();
        let (sender, lines) = mpsc::channel();
        let printed = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let mut log = child.stderr.take().expect("piped");
        let readers = [
            std::thread::spawn(move || {
                let mut text = String::new();
                for line in printed {
                    text += &line;
                    text.push('\n');
                    // The test reads as far as it needs to.
                    let _ = sender.send(line);
                }
                text
            }),
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = log.read_to_end(&mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            }),
        ];
        Printing { child: Running(child), lines, readers: Some(readers) }
    }

    /// Starts the command with its log going to a file that the test reads, and that it looks for secrets in: [`leaks::check`].
    pub(crate) fn start_with_log(mut self, log: impl Into<Stdio>) -> Running {
        Running(self.0.stdout(Stdio::null()).stderr(log).spawn().expect("the program runs"))
    }

    /// Starts the command with its output and its log captured.
    pub(super) fn start(&mut self) -> Child {
        self.0.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs")
    }
}

/// Runs a command until it ends.
pub(crate) fn run_to_end(command: &mut Postern) -> Output {
    run_script(&mut command.0)
}

/// Runs any command until it ends, such as a script that runs the program.
pub(crate) fn run_script(command: &mut Command) -> Output {
    let output = command.output().expect("the program runs");
    checked(command, output)
}

fn checked(command: &Command, output: Output) -> Output {
    for text in [&output.stdout, &output.stderr] {
        leaks::check(format_args!("the output of {:?}", command.get_args()), &String::from_utf8_lossy(text));
    }
    output
}

/// A running process that prints to its standard output, killed with the test.
pub(crate) struct Printing {
    child: Running,
    lines: mpsc::Receiver<String>,
    /// Of the output and the log, to their ends.
    readers: Option<[JoinHandle<String>; 2]>,
}

impl Printing {
    /// The next line; `None` at the end of the output.
    pub(crate) fn next_line(&mut self) -> Option<String> {
        self.lines.recv().ok()
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        let _ = self.child.0.kill();
        let _ = self.child.0.wait();
        for reader in self.readers.take().into_iter().flatten() {
            leaks::check("the output of a process", &reader.join().expect("no panic"));
        }
    }
}
