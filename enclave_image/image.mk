# What the enclave image needs beyond the environment. `make image`: build one; `make vm`: boot it in QEMU and use it;
# `make image-test`: the slow tests (builds, reproducibility). Packages come by apt, the vsock device by cargo.
.PHONY: image vm image-test vm-tools

VSOCK_DEVICE := .tea/tools/bin/vhost-device-vsock
VSOCK_VERSION := 0.3.0
IMAGE := build/image/tea-vm.eif

image: $(VENV)/.parent  ## build the enclave image for a VM, with its list of contents
	$(BIN)/teactl image build --platform vm --out $(IMAGE)

vm: $(VENV)/.dev vm-tools image  ## boot the image in QEMU: settings over AF_VSOCK, rounds certified with two simulated peers
	$(BIN)/python -m bench.vm --image $(IMAGE) --out build/vm

image-test: $(VENV)/.dev  ## builds in different folders give the same bytes; real signing tokens; the boot
	$(BIN)/pytest -m slow tests/enclave_image

vm-tools: $(VSOCK_DEVICE)
	@command -v qemu-system-x86_64 >/dev/null || { $(APT) update && $(APT) install -y --no-install-recommends qemu-system-x86 seabios; }
	@command -v gcc >/dev/null && test -e /usr/include/linux/vm_sockets.h \
		|| { $(APT) update && $(APT) install -y --no-install-recommends gcc libc6-dev linux-libc-dev; }

APT := $(if $(filter 0,$(shell id -u)),,sudo )apt-get -q

$(VSOCK_DEVICE):
	command -v cargo >/dev/null || { echo "cargo is needed for vhost-device-vsock: apt-get install cargo" >&2; exit 1; }
	cargo install --quiet --locked --version $(VSOCK_VERSION) --root .tea/tools vhost-device-vsock
