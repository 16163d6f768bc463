# `make fuzz SECONDS=120`: every decoder of what strangers send, SECONDS together; see docs/security.md.
.PHONY: fuzz
fuzz: $(VENV)/.dev $(VENV)/.fuzz  ## fuzz what reads strangers' bytes: attestations, bundles, manifests, policies, ...
	$(BIN)/python tests/fuzz --seconds $(SECONDS)

# Atheris has wheels for Linux alone; without it hypothesis mutates the corpus.
$(VENV)/.fuzz: requirements/fuzz.txt
	-$(PIP) --require-hashes --only-binary :all: -r requirements/fuzz.txt
	touch $@
