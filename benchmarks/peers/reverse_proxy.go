// A bare httputil.ReverseProxy of the standard library: nothing but the credential, no log, no policy.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

func main() {
	listen := flag.String("listen", "", "HOST:PORT")
	upstream := flag.String("upstream", "", "URL")
	authority := flag.String("authority", "", "PEM file with CA certificates")
	credential := flag.String("credential", "", "value of Authorization")
	flag.Parse()

	target, err := url.Parse(*upstream)
	if err != nil {
		log.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: 512, DisableCompression: true}
	if *authority != "" {
		pem, err := os.ReadFile(*authority)
		if err != nil {
			log.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Set("Authorization", *credential)
		},
	}
	log.Fatal(http.ListenAndServe(*listen, proxy))
}
