"""Google Colab, driven through the official ``colab`` command (google-colab-cli)."""
