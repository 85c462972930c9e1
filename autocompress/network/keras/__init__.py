"""The float network as a trainable `tf_keras` model, and its weights back again."""
