//! Relaxed SIMD in a module that browsers without it can load. Input: the wasm file of the engine. Output: the same
//! file with fewer relaxed instructions, and beside it [`LIST`], the places of the others.
//!
//! A browser that lacks an instruction refuses the whole module, also where the instruction is never reached. There the
//! page overwrites every listed one with a trap (`page/engine-module.js`). The loops that contain them are then never
//! called.
//!
//! Instructions are overwritten, not functions: `wasm-opt` may move a loop into the function that chooses it. And if
//! one function may have relaxed instructions, LLVM writes them in all others, too: `f32x4.relaxed_min` for
//! `f32x4.pmin`, with results for NaN that depend on the processor. Every instruction with an exact meaning becomes
//! exact again, for all browsers.

use std::{fs, path::Path};

use serde_json::json;
use wasmparser::{BinaryReaderError, Parser, Payload, Validator, WasmFeatures};

use crate::BundleError;

/// The list's name: a JSON array with the offset of the first instruction in the wasm file, then the distance from each
/// to the next. Each has [`LENGTH`] bytes.
pub(crate) const LIST: &str = "relaxed.json";

/// Bytes of a relaxed instruction: the prefix of vectors, and its number, which is 256 to 275.
const LENGTH: usize = 3;

/// `unreachable`, and `nop` twice: valid in place of any instruction.
const TRAP: [u8; LENGTH] = [0, 1, 1];

/// Makes relaxed instructions of a wasm file exact where they can be, and lists the others beside it.
///
/// # Errors
/// [`BundleError::Relaxed`] if the module is not valid without the listed instructions; [`BundleError::File`] if a file
/// can't be read or written.
pub(crate) fn list(module: &Path) -> Result<(), BundleError> {
    let mut bytes = fs::read(module).map_err(|why| BundleError::file(module, why))?;
    let found = |bytes: &mut Vec<u8>| {
        let places = settle(bytes)?;
        validate(bytes, &places)?;
        Ok(places)
    };
    let places = found(&mut bytes)
        .map_err(|why: BinaryReaderError| BundleError::Relaxed { module: module.to_owned(), why: why.to_string() })?;
    fs::write(module, bytes).map_err(|why| BundleError::file(module, why))?;
    let before = std::iter::once(&0).chain(&places);
    let distances: Vec<usize> = places.iter().zip(before).map(|(at, before)| at - before).collect();
    let path = module.with_file_name(LIST);
    fs::write(&path, json!(distances).to_string()).map_err(|why| BundleError::file(&path, why))
}

/// Replaces relaxed instructions by exact ones, and returns the offsets of the others.
fn settle(bytes: &mut [u8]) -> Result<Vec<usize>, BinaryReaderError> {
    let mut found = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let Payload::CodeSectionEntry(body) = payload? else { continue };
        for operator in body.get_operators_reader()?.into_iter_with_offsets() {
            let (_, at) = operator?;
            if let Some([0xfd, low @ 0x80..=0x93, 2]) = bytes.get(at..at + LENGTH) {
                found.push((at, low & 0x7f));
            }
        }
    }
    let mut others = Vec::new();
    for (at, relaxed) in found {
        match exact(relaxed) {
            // As two bytes, although one is enough below 128: the length stays the same.
            Some(number) => bytes[at..at + LENGTH].copy_from_slice(&[0xfd, number | 0x80, number >> 7]),
            None => others.push(at),
        }
    }
    Ok(others)
}

/// The number of an instruction of SIMD128 whose results relaxed instruction 256 + `relaxed` may have, too.
fn exact(relaxed: u8) -> Option<u8> {
    Some(match relaxed {
        // i8x16.swizzle
        0x00 => 0x0e,
        // i32x4.trunc_sat_f32x4_s, _u, i32x4.trunc_sat_f64x2_s_zero, _u_zero
        0x01 => 0xf8,
        0x02 => 0xf9,
        0x03 => 0xfc,
        0x04 => 0xfd,
        // v128.bitselect
        0x09..=0x0c => 0x52,
        // f32x4.pmin, pmax, f64x2.pmin, pmax
        0x0d => 0xea,
        0x0e => 0xeb,
        0x0f => 0xf6,
        0x10 => 0xf7,
        // i16x8.q15mulr_sat_s
        0x11 => 0x82,
        // One rounding instead of two, and sums of products: no single instruction.
        _ => return None,
    })
}

/// Checks that a browser without relaxed SIMD accepts the module after the page has overwritten `places`.
fn validate(bytes: &[u8], places: &[usize]) -> Result<(), BinaryReaderError> {
    let mut bytes = bytes.to_owned();
    for at in places {
        bytes[*at..at + LENGTH].copy_from_slice(&TRAP);
    }
    let features = WasmFeatures::default().difference(WasmFeatures::RELAXED_SIMD);
    Validator::new_with_features(features).validate_all(&bytes).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with functions that take three vectors and return one. `bodies` are without locals and end.
    fn module(bodies: &[&[u8]]) -> Vec<u8> {
        let count = bodies.len() as u8;
        let mut code = vec![count];
        for body in bodies {
            code.extend([body.len() as u8 + 2, 0]);
            code.extend(*body);
            code.push(0x0b);
        }
        let mut out = b"\0asm\x01\0\0\0".to_vec();
        out.extend([1, 8, 1, 0x60, 3, 0x7b, 0x7b, 0x7b, 1, 0x7b]);
        out.extend([3, count + 1, count]);
        out.extend(vec![0; bodies.len()]);
        out.extend([10, code.len() as u8]);
        out.extend(code);
        out
    }

    /// `f32x4.add`, after a constant with the bytes of `f32x4.relaxed_madd`.
    const PLAIN: &[u8] =
        &[0xfd, 0x0c, 0xfd, 0x85, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1a, 0x20, 0, 0x20, 1, 0xfd, 0xe4, 1];
    /// `f32x4.relaxed_madd`, with a vector below its operands, and its result in a local.
    const MADD: &[u8] = &[0x20, 0, 0x20, 0, 0x20, 1, 0x20, 2, 0xfd, 0x85, 2, 0x21, 2];
    /// `i32x4.relaxed_dot_i8x16_i7x16_add_s`
    const DOT: &[u8] = &[0x20, 0, 0x20, 1, 0x20, 2, 0xfd, 0x93, 2];

    #[test]
    fn a_module_is_valid_without_the_listed_instructions() -> Result<(), Box<dyn std::error::Error>> {
        let mut bytes = module(&[PLAIN, MADD, PLAIN, DOT]);
        let before = bytes.clone();
        assert!(validate(&bytes, &[]).is_err(), "expected a module with relaxed SIMD");
        let places = settle(&mut bytes)?;
        let found: Vec<_> = places.iter().map(|at| bytes[*at + 1]).collect();
        assert_eq!((found, bytes == before), (vec![0x85, 0x93], true), "(got, expected)");
        validate(&bytes, &places)?;
        assert!(validate(&bytes, &places[..1]).is_err(), "expected an error: one instruction is left");
        Ok(())
    }

    #[test]
    fn instructions_with_an_exact_meaning_are_replaced() -> Result<(), Box<dyn std::error::Error>> {
        for relaxed in (0..0x14).filter(|relaxed| exact(*relaxed).is_some()) {
            let operands: &[u8] = match relaxed {
                0x01..=0x04 => &[0x20, 0],
                0x09..=0x0c => &[0x20, 0, 0x20, 1, 0x20, 2],
                _ => &[0x20, 0, 0x20, 1],
            };
            let mut bytes = module(&[&[operands, &[0xfd, 0x80 | relaxed, 2]].concat()]);
            Validator::new().validate_all(&bytes)?;
            assert!(validate(&bytes, &[]).is_err(), "{relaxed}: expected a module with relaxed SIMD");
            assert_eq!(settle(&mut bytes)?, [0; 0], "{relaxed} (got, expected)");
            validate(&bytes, &[])?;
        }
        Ok(())
    }

    #[test]
    fn the_list_has_distances() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.wasm");
        let lists = |bodies: &[&[u8]]| -> Result<Vec<usize>, Box<dyn std::error::Error>> {
            fs::write(&path, module(bodies))?;
            list(&path)?;
            Ok(serde_json::from_slice(&fs::read(folder.path().join(LIST))?)?)
        };
        let mut bytes = module(&[MADD, MADD]);
        let places = settle(&mut bytes)?;
        assert_eq!(lists(&[MADD, MADD])?, [places[0], places[1] - places[0]], "(got, expected)");
        assert_eq!(lists(&[PLAIN])?, [0; 0], "(got, expected)");
        fs::write(&path, "no module")?;
        let error = list(&path).expect_err("expected an error");
        assert!(matches!(error, BundleError::Relaxed { .. }), "{error}");
        Ok(())
    }
}
