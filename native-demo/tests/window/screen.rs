//! Starts a separate X server for the test.

use std::{
    io::{BufRead, BufReader, ErrorKind},
    process::{Child, Command, Stdio},
};

use crate::Outcome;

/// An Xvfb that ends with the test.
pub struct Screen {
    server: Child,
    name: String,
}

impl Screen {
    /// Starts the server; None if Xvfb is not installed.
    pub fn open() -> Outcome<Option<Self>> {
        let started = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1280x900x24", "-nolisten", "tcp"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut server = match started {
            Ok(server) => server,
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(why.into()),
        };
        let mut number = String::new();
        let out = server.stdout.take().ok_or("expected Xvfb's output")?;
        BufReader::new(out).read_line(&mut number)?;
        let name = format!(":{}", number.trim());
        Ok(Some(Self { server, name }))
    }

    /// The value of the variable DISPLAY.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
