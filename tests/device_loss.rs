//! A GPU that is lost at any point: the result is a typed error, and a new device in the same process gives the same
//! answer.
//!
//! The device is destroyed, as by a driver reset, after each event of a run and at several points of loading. The run
//! must then end soon with [`RuntimeError::DeviceLost`], and never with a panic, a hang or a wrong answer.

use std::{cell::Cell, pin::pin, sync::Arc};

use fovea_model::{AskOptions, Cancel, Checkpoint, Conversation, Error, Event, Model, Precision, Stage, Turn};
use fovea_runtime::{DeviceChoice, Error as RuntimeError, OpenDevice, source::Source, testing::lose_device};
use fovea_tests::{
    device::{cpu, wgpu},
    golden::fixtures,
    run::{ask, fixture, options, picture},
};
use futures_util::StreamExt;
use pollster::block_on;

const PICTURE: &str = "200x200-0.png";
const QUESTION: &str = "What number is on the shirt?";

fn open() -> OpenDevice {
    block_on(OpenDevice::open(&DeviceChoice::Wgpu)).expect("an adapter that opened once to open again")
}

fn load(device: &OpenDevice, progress: impl Fn()) -> Result<Arc<Model>, Error> {
    let source = Source::directory(fixtures().join("tiny-0")).expect("a fixture's directory");
    let checkpoint = block_on(Checkpoint::open(source)).expect("a fixture's checkpoint");
    block_on(Model::load(checkpoint, device.clone(), Precision::F32, &Cancel::default(), |_| progress()))
}

fn is_loss(error: &Error) -> bool {
    matches!(error, Error::Runtime(RuntimeError::DeviceLost(_)))
}

/// Loses the device at event number `at` of a run. Returns the name of this event and the result of the run; None where
/// there is no such event.
fn lost_at(model: &Arc<Model>, device: &OpenDevice, at: usize) -> Option<(String, Result<Turn, Error>)> {
    let mut conversation = Conversation::new(model, picture(PICTURE));
    let options = options(4);
    let mut end = None;
    let mut point = None;
    {
        let mut events = pin!(conversation.ask(QUESTION, &options));
        let mut seen = 0;
        while let Some(event) = block_on(events.next()) {
            match event {
                Ok(Event::Done(turn)) => end = Some(Ok(*turn)),
                // It depends on the time.
                Ok(Event::Progress(_)) => {}
                Ok(event) => {
                    if seen == at {
                        point = Some(match event {
                            Event::Stage { stage, .. } => stage.name().to_owned(),
                            Event::Looked(_) => "looked".to_owned(),
                            _ => "token".to_owned(),
                        });
                        lose_device(device);
                    }
                    seen += 1;
                }
                Err(error) => end = Some(Err(error)),
            }
        }
    }
    // A lost device stays lost: the next question has no answer either.
    if point.is_some() && matches!(end, Some(Err(_))) {
        let again = ask(&mut conversation, QUESTION, &options);
        assert!(
            again.as_ref().is_err_and(is_loss),
            "expected another DeviceLost, got {:?}",
            again.map(|t| t.answer_ids)
        );
    }
    Some((point?, end?))
}

#[test]
fn a_device_lost_after_any_event_is_a_typed_error_and_a_new_device_gives_the_same_answer() {
    let Some(first) = wgpu("a device lost after any event") else { return };
    let expected =
        ask(&mut Conversation::new(&fixture("tiny-0", first), picture(PICTURE)), QUESTION, &options(4)).unwrap();
    let mut points = Vec::new();
    for at in 0.. {
        let device = open();
        let model = load(&device, || ()).unwrap_or_else(|e| panic!("expected the model on a new device, got: {e}"));
        let Some((point, end)) = lost_at(&model, &device, at) else {
            // No event is left, so the device is not lost: the new device must answer as the first one did.
            let turn = ask(&mut Conversation::new(&model, picture(PICTURE)), QUESTION, &options(4)).unwrap();
            assert_eq!(turn.answer_ids, expected.answer_ids, "answer on a new device (got, expected)");
            assert_eq!(turn.looked[0].kept, expected.looked[0].kept, "kept tokens on a new device (got, expected)");
            break;
        };
        match end {
            Err(error) => assert!(is_loss(&error), "after {point}: expected DeviceLost, got: {error}"),
            // After the last read, nothing uses the device.
            Ok(turn) => {
                let last = point == "token" || point == Stage::Decode.name();
                assert!(last, "after {point}: expected DeviceLost, got an answer");
                assert_eq!(turn.answer_ids, expected.answer_ids, "after {point}: answer (got, expected)");
            }
        }
        points.push(point);
    }
    for stage in [Stage::Prompt, Stage::VisionTower, Stage::Compress, Stage::ImagePrefill, Stage::Prune] {
        assert!(points.iter().any(|p| p == stage.name()), "expected a loss after {}, got {points:?}", stage.name());
    }
}

#[test]
fn a_device_lost_while_loading_is_a_typed_error() {
    if wgpu("a device lost while loading").is_none() {
        return;
    }
    for after in [1, 10, 40] {
        let (device, calls) = (open(), Cell::new(0));
        let loaded = load(&device, || {
            calls.set(calls.get() + 1);
            if calls.get() == after {
                lose_device(&device);
            }
        });
        match loaded {
            Err(error) => assert!(is_loss(&error), "after {after} steps: expected DeviceLost, got: {error}"),
            Ok(_) => panic!("after {after} of {} steps: expected DeviceLost, got a model", calls.get()),
        }
    }
}

#[test]
fn a_closed_device_is_a_typed_error_and_the_cpu_stays_open() {
    let Some(first) = wgpu("a closed device") else { return };
    let device = open();
    let model = load(&device, || ()).unwrap();
    device.close();
    let error = ask(&mut Conversation::new(&model, picture(PICTURE)), QUESTION, &AskOptions::default()).unwrap_err();
    assert!(is_loss(&error) && error.to_string().contains("closed"), "expected an error with `closed`, got: {error}");
    // Other devices still work: the first one, and the CPU.
    cpu().close();
    for open in [first, cpu()] {
        let turn = ask(&mut Conversation::new(&fixture("tiny-0", open), picture(PICTURE)), QUESTION, &options(2));
        turn.unwrap_or_else(|e| panic!("{}: expected an answer, got: {e}", open.info));
    }
}
