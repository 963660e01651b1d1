// A BuildKit frontend for the tests, made with BuildKit's own client package: it reads a file "recipe" of the client and answers an image with it and with what it
// was told. The options "fail" and "exit" have it fail, the build argument IMAGE has it run a command in that image.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/gateway/grpcclient"
	"github.com/moby/buildkit/util/appcontext"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	if err := grpcclient.RunFromEnvironment(appcontext.Context(), build); err != nil {
		fmt.Fprintln(os.Stderr, "frontend:", err)
		os.Exit(1)
	}
}

func solve(ctx context.Context, c client.Client, state llb.State) (*client.Result, error) {
	definition, err := state.Marshal(ctx, llb.LinuxAmd64)
	if err != nil {
		return nil, err
	}
	return c.Solve(ctx, client.SolveRequest{Definition: definition.ToPB()})
}

func build(ctx context.Context, c client.Client) (*client.Result, error) {
	options := c.BuildOpts().Opts
	if options["exit"] != "" {
		fmt.Fprintln(os.Stderr, "last words")
		os.Exit(9)
	}
	if options["fail"] != "" {
		return nil, fmt.Errorf("asked to fail: %s", options["fail"])
	}
	source := llb.Local("dockerfile", llb.FollowPaths([]string{"recipe"}), llb.WithCustomName("[internal] load recipe"))
	read, err := solve(ctx, c, source)
	if err != nil {
		return nil, err
	}
	ref, err := read.SingleRef()
	if err != nil {
		return nil, err
	}
	recipe, err := ref.ReadFile(ctx, client.ReadRequest{Filename: "recipe"})
	if err != nil {
		return nil, err
	}
	state := llb.Scratch()
	if image := options["build-arg:IMAGE"]; image != "" {
		state = llb.Image(image).Run(llb.Shlex("sh -c 'echo ran > /ran'")).Root()
	}
	told := options["cmdline"] + "\n" + options["build-arg:A"] + "\n"
	state = state.File(llb.Mkfile("/recipe", 0644, recipe)).File(llb.Mkfile("/told", 0644, []byte(told)))
	result, err := solve(ctx, c, state)
	if err != nil {
		return nil, err
	}
	image := ocispecs.Image{Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"}}
	image.Config.Env = []string{"MADE_BY=a frontend of one's own", "PATH=/bin"}
	config, err := json.Marshal(image)
	if err != nil {
		return nil, err
	}
	result.AddMeta("containerimage.config", config)
	return result, nil
}
