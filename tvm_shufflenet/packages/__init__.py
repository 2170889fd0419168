"""What a compiled network is on disk: a folder or an archive with a manifest, licences and a bill of materials."""
