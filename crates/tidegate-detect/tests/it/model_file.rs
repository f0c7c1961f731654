//! A model file gives the same scores after loading, or is refused.

use crate::plant::{data, device, model, options, ordinary};
use sha2::{Digest, Sha256};
use tidegate_detect::detector::Detector;
use tidegate_detect::forest::Kind;
use tidegate_detect::model::{Model, ModelError};
use tidegate_detect::train::{TrainOptions, train};
use tidegate_envelope::id::DeviceIndex;

/// The model's bytes as `change` leaves them, with a checksum that holds.
fn forged(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = model().to_bytes();
    bytes.truncate(bytes.len() - 32);
    change(&mut bytes);
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

fn replace(bytes: &mut Vec<u8>, old: &str, new: &str) {
    assert_eq!(old.len(), new.len());
    let at = bytes
        .windows(old.len())
        .position(|window| window == old.as_bytes())
        .unwrap();
    bytes.splice(at..at + old.len(), new.bytes());
}

#[test]
fn a_loaded_model_is_the_saved_one_and_scores_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let plain = train(
        &data(1),
        &TrainOptions {
            forest: Kind::Plain,
            ..options()
        },
        &mut |_| (),
    )
    .unwrap();
    for model in [model(), plain.into()] {
        let path = folder.path().join("model");
        model.save(&path).unwrap();
        let loaded = Model::load(&path).unwrap();
        assert_eq!(loaded, *model);
        let [mut before, mut after] = [model, loaded.into()].map(|model| Detector::new(model, [&device(0)]));
        for (at, channels) in ordinary(0, 20_000, 500) {
            let score =
                |detector: &mut Detector| detector.assess(DeviceIndex(0), at, &channels).score.to_bits();
            assert_eq!(score(&mut before), score(&mut after));
        }
    }
    let files: Vec<_> = folder.path().read_dir().unwrap().collect();
    assert_eq!(files.len(), 1, "nothing is left beside the model");
}

#[test]
fn any_flipped_byte_is_refused() {
    let bytes = model().to_bytes();
    for at in (0..bytes.len())
        .step_by(bytes.len() / 50)
        .chain([0, 8, 12, 16, bytes.len() - 1])
    {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(
            Model::from_bytes(&flipped).is_err(),
            "byte {at} of {}",
            bytes.len()
        );
    }
}

#[test]
fn a_cut_or_lengthened_file_is_refused() {
    let bytes = model().to_bytes();
    for length in [0, 7, 8, 47, bytes.len() / 2, bytes.len() - 1] {
        assert!(Model::from_bytes(&bytes[..length]).is_err(), "{length} bytes");
    }
    assert!(matches!(
        Model::from_bytes(&[&bytes[..], &[0]].concat()),
        Err(ModelError::Checksum)
    ));
}

#[test]
fn an_unknown_version_is_refused_by_name() {
    let bytes = forged(|bytes| bytes[8] = 1);
    let error = Model::from_bytes(&bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "model version 1 is not known, only 2: train it again"
    );
}

#[test]
fn a_pickle_is_refused() {
    let mut pickle = b"\x80\x04\x95joblib".to_vec();
    pickle.resize(4_096, b'.');
    assert!(matches!(Model::from_bytes(&pickle), Err(ModelError::NotAModel)));
}

#[test]
fn content_that_no_training_makes_is_refused_though_its_checksum_holds() {
    let check = |old, new| Model::from_bytes(&forged(|bytes| replace(bytes, old, new)));
    assert!(Model::from_bytes(&forged(|_| ())).is_ok());
    assert!(matches!(
        check(r#""stuck""#, r#""drift""#),
        Err(ModelError::Features)
    ));
    assert!(matches!(
        check(r#""frozen""#, r#""melted""#),
        Err(ModelError::Malformed(_))
    ));
    assert!(matches!(
        check(r#""seed""#, r#""sead""#),
        Err(ModelError::Malformed(_))
    ));
    assert!(matches!(
        check(r#""false_alarm_rate":0"#, r#""false_alarm_rate":5"#),
        Err(ModelError::Malformed(_))
    ));
    assert!(matches!(
        check("device-001", "device-000"),
        Err(ModelError::Malformed(_))
    ));
    assert!(matches!(
        check(r#""upstream":4"#, r#""upstream":9"#),
        Err(ModelError::Malformed(_))
    ));
    let longer = forged(|bytes| bytes[15] = 0xff);
    assert!(matches!(
        Model::from_bytes(&longer),
        Err(ModelError::Malformed(_))
    ));
}

#[test]
fn a_failed_save_leaves_the_old_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    model().save(&path).unwrap();
    std::fs::create_dir(folder.path().join("model.partial")).unwrap();
    assert!(matches!(model().save(&path), Err(ModelError::Io { .. })));
    assert!(Model::load(&path).is_ok());
}

#[test]
fn a_file_that_is_not_there_is_an_error_that_names_it() {
    let error = Model::load("no/such/model".as_ref()).unwrap_err();
    assert_eq!(error.to_string(), "model file no/such/model cannot be used");
}
